-- write: add-token
INSERT INTO tokens (id, hash, node, role, grants, created, made_by, expires) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (id) DO NOTHING;

-- read: token
SELECT id, hash, node, role, grants, created, made_by, expires, cancelled, used_at, used_by FROM tokens WHERE id = $1;

-- read: tokens
SELECT id, hash, node, role, grants, created, made_by, expires, cancelled, used_at, used_by FROM tokens ORDER BY created, id;

-- One statement decides who wins a race.
-- write: use-token
UPDATE tokens SET used_at = $1, used_by = $2 WHERE id = $3 AND used_at IS NULL AND cancelled IS NULL AND expires > $4;

-- What ended without a use says so for good: a clock set back must not open it again.
-- write: end-tokens
UPDATE tokens SET used_at = expires WHERE used_at IS NULL AND expires <= $1;

-- write: cancel-token
UPDATE tokens SET cancelled = $1 WHERE id = $2 AND used_at IS NULL AND cancelled IS NULL;

-- write: cancel-tokens-made-by
UPDATE tokens SET cancelled = $1 WHERE made_by = $2 AND used_at IS NULL AND cancelled IS NULL;

-- Used ones too: a joining that is under way has used its token already.
-- write: cancel-tokens
UPDATE tokens SET cancelled = $1 WHERE node = $2 AND cancelled IS NULL;

-- write: prune-tokens
DELETE FROM tokens WHERE expires < $1;
