-- read: rotation
SELECT step, old_root, new_root, began, since, passed FROM rotation WHERE one = 1;

-- write: put-rotation
INSERT INTO rotation (one, step, old_root, new_root, began, since, passed) VALUES (1, ?, ?, ?, ?, ?, ?)
ON CONFLICT (one) DO UPDATE SET step = excluded.step, old_root = excluded.old_root, new_root = excluded.new_root,
  began = excluded.began, since = excluded.since, passed = excluded.passed;

-- Certificates that still stand and lead to a root, the longest-lived of each identity at each node.
-- read: certs-under
SELECT node, spiffe_id, max(not_after) FROM certs WHERE not_after > ? AND root = ?
  AND NOT EXISTS (SELECT 1 FROM admins WHERE admins.serial = lower(hex(certs.serial)) AND revoked IS NOT NULL)
GROUP BY node, spiffe_id ORDER BY node, spiffe_id;
