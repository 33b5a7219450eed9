-- write: add-invite
INSERT INTO invites (id, hash, peer, created, expires) VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING;

-- read: invite
SELECT id, hash, peer, created, expires, used_at, used_by FROM invites WHERE id = ?;

-- read: open-invites
SELECT id, peer, expires FROM invites WHERE used_at IS NULL AND expires > ? ORDER BY id;

-- One statement decides who wins a race.
-- write: use-invite
UPDATE invites SET used_at = ?, used_by = ? WHERE id = ? AND used_at IS NULL AND expires > ?;

-- What ended without a use says so for good: a clock set back must not open it again.
-- write: end-invites
UPDATE invites SET used_at = expires WHERE used_at IS NULL AND expires <= ?;

-- write: cancel-invites
DELETE FROM invites WHERE peer = ? AND used_at IS NULL;

-- write: prune-invites
DELETE FROM invites WHERE expires < ?;

-- write: put-bootstrap
INSERT INTO bootstraps (id, address, expires) VALUES (?, ?, ?)
ON CONFLICT (id) DO UPDATE SET address = excluded.address, expires = excluded.expires;

-- read: bootstraps
SELECT id, address FROM bootstraps WHERE expires > ? ORDER BY id;

-- write: delete-bootstrap
DELETE FROM bootstraps WHERE id = ?;

-- write: prune-bootstraps
DELETE FROM bootstraps WHERE expires < ?;
