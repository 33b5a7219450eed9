-- read: vips
SELECT host, namespace, address, gone FROM vips ORDER BY host;

-- write: put-vip (changes addresses)
INSERT INTO vips (host, namespace, address, gone) VALUES ($1, $2, $3, $4)
ON CONFLICT (host) DO UPDATE SET namespace = excluded.namespace, address = excluded.address, gone = excluded.gone;

-- write: delete-vip (changes addresses)
DELETE FROM vips WHERE host = $1;
