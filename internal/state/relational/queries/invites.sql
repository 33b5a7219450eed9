-- write: add-invite (changes invitations)
INSERT INTO invites (id, hash, peer, created, expires) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO NOTHING;

-- read: invite
SELECT id, hash, peer, created, expires, used_at, used_by FROM invites WHERE id = $1;

-- read: open-invites
SELECT id, peer, expires FROM invites WHERE used_at IS NULL AND expires > $1 ORDER BY id;

-- One statement decides who wins a race.
-- write: use-invite (changes invitations)
UPDATE invites SET used_at = $1, used_by = $2 WHERE id = $3 AND used_at IS NULL AND expires > $4;

-- What ended without a use says so for good: a clock set back must not open it again.
-- write: end-invites (changes invitations)
UPDATE invites SET used_at = expires WHERE used_at IS NULL AND expires <= $1;

-- write: cancel-invites (changes invitations)
DELETE FROM invites WHERE peer = $1 AND used_at IS NULL;

-- write: prune-invites
DELETE FROM invites WHERE expires < $1;

-- write: put-bootstrap (changes invitations)
INSERT INTO bootstraps (id, address, expires) VALUES ($1, $2, $3)
ON CONFLICT (id) DO UPDATE SET address = excluded.address, expires = excluded.expires;

-- read: bootstraps
SELECT id, address FROM bootstraps WHERE expires > $1 ORDER BY id;

-- write: delete-bootstrap (changes invitations)
DELETE FROM bootstraps WHERE id = $1;

-- write: prune-bootstraps
DELETE FROM bootstraps WHERE expires < $1;
