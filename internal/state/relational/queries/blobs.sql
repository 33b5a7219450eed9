-- write: put-blob (changes authority)
INSERT INTO blobs (name, cert, key, created) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET cert = excluded.cert, key = excluded.key, created = excluded.created;

-- write: blob-as-it-is
SELECT cert FROM blobs WHERE name = $1;

-- read: blob
SELECT name, cert, key, created FROM blobs WHERE name = $1;

-- write: delete-blob
DELETE FROM blobs WHERE name = $1;
