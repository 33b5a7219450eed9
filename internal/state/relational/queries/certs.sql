-- None under a root that does not sign any more, and none for a node that was revoked or has joined anew.
-- write: add-cert
INSERT INTO certs (serial, spiffe_id, node, fingerprint, not_before, not_after, root) SELECT $1, $2, $3, $4, $5, $6, $7
WHERE NOT EXISTS (SELECT 1 FROM rotation WHERE signing <> $7)
  AND ($8 = '' OR EXISTS (SELECT 1 FROM nodes WHERE name = $3 AND generation = $8 AND revoked IS NULL));

-- Empty arguments select all.
-- read: certs
SELECT serial, spiffe_id, node, fingerprint, not_before, not_after, root FROM certs
WHERE not_after > $1 AND ($2 = '' OR node = $2) AND ($3 = '' OR spiffe_id = $3)
ORDER BY not_after DESC, serial LIMIT $4;

-- write: prune-certs
DELETE FROM certs WHERE not_after < $1;
