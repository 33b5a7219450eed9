-- write: add-token
INSERT INTO tokens (id, hash, node, role, grants, created, made_by, expires) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;

-- read: token
SELECT id, hash, node, role, grants, created, made_by, expires, cancelled, used_at, used_by FROM tokens WHERE id = ?;

-- read: tokens
SELECT id, hash, node, role, grants, created, made_by, expires, cancelled, used_at, used_by FROM tokens ORDER BY created, id;

-- One statement decides who wins a race.
-- write: use-token
UPDATE tokens SET used_at = ?, used_by = ? WHERE id = ? AND used_at IS NULL AND cancelled IS NULL AND expires > ?;

-- What ended without a use says so for good: a clock set back must not open it again.
-- write: end-tokens
UPDATE tokens SET used_at = expires WHERE used_at IS NULL AND expires <= ?;

-- write: cancel-token
UPDATE tokens SET cancelled = ? WHERE id = ? AND used_at IS NULL AND cancelled IS NULL;

-- write: cancel-tokens-made-by
UPDATE tokens SET cancelled = ? WHERE made_by = ? AND used_at IS NULL AND cancelled IS NULL;

-- Used ones too: a joining that is under way has used its token already.
-- write: cancel-tokens
UPDATE tokens SET cancelled = ? WHERE node = ? AND cancelled IS NULL;

-- write: prune-tokens
DELETE FROM tokens WHERE expires < ?;
