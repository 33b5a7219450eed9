-- write: add-blob
INSERT INTO blobs (name, cert, key, created) VALUES (?, ?, ?, ?) ON CONFLICT (name) DO NOTHING;

-- write: put-blob
INSERT INTO blobs (name, cert, key, created) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET cert = excluded.cert, key = excluded.key, created = excluded.created;

-- read: blob
SELECT name, cert, key, created FROM blobs WHERE name = ?;

-- read: blobs
SELECT name, cert, key, created FROM blobs ORDER BY name;

-- write: delete-blob
DELETE FROM blobs WHERE name = ?;
