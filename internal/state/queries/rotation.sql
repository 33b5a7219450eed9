-- read: rotation
SELECT step, old_root, new_root, began, since, passed FROM rotation WHERE one = 1;

-- write: put-rotation
INSERT INTO rotation (one, step, old_root, new_root, began, since, passed) VALUES (1, ?, ?, ?, ?, ?, ?)
ON CONFLICT (one) DO UPDATE SET step = excluded.step, old_root = excluded.old_root, new_root = excluded.new_root,
  began = excluded.began, since = excluded.since, passed = excluded.passed;

-- Certificates that still stand and lead to another root, the longest-lived of each identity at each node.
-- read: certs-not-under
SELECT node, spiffe_id, max(not_after) FROM certs WHERE not_after > ? AND root <> ? GROUP BY node, spiffe_id ORDER BY node, spiffe_id;
