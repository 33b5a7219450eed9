-- write: add-token
INSERT INTO tokens (id, hash, node, role, grants, created, expires) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;

-- read: token
SELECT id, hash, node, role, grants, created, expires, used_at, used_by FROM tokens WHERE id = ?;

-- read: tokens
SELECT id, hash, node, role, grants, created, expires, used_at, used_by FROM tokens ORDER BY created, id;

-- One statement decides who wins a race.
-- write: use-token
UPDATE tokens SET used_at = ?, used_by = ? WHERE id = ? AND used_at IS NULL AND expires > ?;

-- What ended without a use says so for good: a clock set back must not open it again.
-- write: end-tokens
UPDATE tokens SET used_at = expires WHERE used_at IS NULL AND expires <= ?;

-- write: cancel-tokens
DELETE FROM tokens WHERE node = ? AND used_at IS NULL;

-- write: prune-tokens
DELETE FROM tokens WHERE expires < ?;
