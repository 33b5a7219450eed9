-- read: rotation
SELECT step, old_root, new_root, began, since, passed FROM rotation WHERE one = 1;

-- write: put-rotation (changes authority)
INSERT INTO rotation (one, step, old_root, new_root, began, since, passed) VALUES (1, $1, $2, $3, $4, $5, $6)
ON CONFLICT (one) DO UPDATE SET step = excluded.step, old_root = excluded.old_root, new_root = excluded.new_root,
  began = excluded.began, since = excluded.since, passed = excluded.passed;
