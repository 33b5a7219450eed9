-- read: rotation
SELECT step, old_root, new_root, signing, began, since, passed FROM rotation WHERE one = 1;

-- write: rotation-step
SELECT step FROM rotation WHERE one = 1;

-- write: put-rotation (changes authority)
INSERT INTO rotation (one, step, old_root, new_root, signing, began, since, passed) VALUES (1, $1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (one) DO UPDATE SET step = excluded.step, old_root = excluded.old_root, new_root = excluded.new_root, signing = excluded.signing,
  began = excluded.began, since = excluded.since, passed = excluded.passed;
