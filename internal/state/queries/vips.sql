-- read: vips
SELECT host, address FROM vips WHERE family = ?;

-- Inside the transaction that gives addresses out: what a host has, and who has an address.
-- write: vip-of
SELECT host, address FROM vips WHERE host = ? AND family = ?;

-- write: vip-at
SELECT host, address FROM vips WHERE address = ?;

-- write: put-vip
INSERT INTO vips (host, family, address, created) VALUES (?, ?, ?, ?)
ON CONFLICT (host, family) DO UPDATE SET address = excluded.address, created = excluded.created;

-- write: delete-vip
DELETE FROM vips WHERE host = ?;
