-- read: vips
SELECT host, address FROM vips WHERE family = ?;

-- Inside the transaction that gives addresses out.
-- write: vips-in-tx
SELECT host, address FROM vips WHERE family = ?;

-- write: put-vip
INSERT INTO vips (host, family, address, created) VALUES (?, ?, ?, ?)
ON CONFLICT (host, family) DO UPDATE SET address = excluded.address, created = excluded.created;

-- write: delete-vip
DELETE FROM vips WHERE host = ?;
