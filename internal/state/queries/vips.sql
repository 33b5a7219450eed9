-- read: vips
SELECT host, namespace, address, gone FROM vips ORDER BY host;

-- write: put-vip
INSERT INTO vips (host, namespace, address, gone) VALUES (?, ?, ?, ?)
ON CONFLICT (host) DO UPDATE SET namespace = excluded.namespace, address = excluded.address, gone = excluded.gone;

-- write: delete-vip
DELETE FROM vips WHERE host = ?;
