-- read: vips
SELECT host, namespace, address, gone FROM vips ORDER BY host;

-- A host keeps its address until it is gone.
-- write: put-vip (changes addresses)
INSERT INTO vips (host, namespace, address, gone) VALUES ($1, $2, $3, $4)
ON CONFLICT (host) DO UPDATE SET namespace = excluded.namespace, gone = excluded.gone WHERE vips.address = excluded.address;

-- write: delete-vip (changes addresses)
DELETE FROM vips WHERE host = $1;
