-- write: establish-peer (changes peers $1)
INSERT INTO peers (name, object, made, roots, bundle_sequence, bundle_time) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (name) DO UPDATE SET object = excluded.object, made = excluded.made, roots = excluded.roots,
  bundle_sequence = excluded.bundle_sequence, bundle_time = excluded.bundle_time, suspended = 0, revoked = NULL, catalogue = NULL;

-- read: peer
SELECT name, object, made, roots, bundle_sequence, bundle_time, suspended, revoked, catalogue FROM peers WHERE name = $1;

-- read: peers
SELECT name, object, made, roots, bundle_sequence, bundle_time, suspended, revoked, catalogue FROM peers ORDER BY name;

-- write: set-bundle (changes peers $1)
INSERT INTO peers (name, roots, bundle_sequence, bundle_time) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET roots = excluded.roots, bundle_sequence = excluded.bundle_sequence,
  bundle_time = excluded.bundle_time WHERE peers.revoked IS NULL;

-- What grew from another first trust goes, a peering by token too. A suspension stays.
-- write: adopt-roots (changes peers $1)
INSERT INTO peers (name, roots, bundle_time) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET object = NULL, made = NULL, roots = excluded.roots, bundle_sequence = 0,
  bundle_time = excluded.bundle_time, catalogue = NULL WHERE peers.revoked IS NULL;

-- write: set-catalogue (changes peers $1)
INSERT INTO peers (name, catalogue) VALUES ($1, $2)
ON CONFLICT (name) DO UPDATE SET catalogue = excluded.catalogue WHERE peers.revoked IS NULL;

-- write: set-peer-object (changes peers $2)
UPDATE peers SET object = $1 WHERE name = $2 AND object IS NOT NULL AND revoked IS NULL;

-- write: set-suspended (changes peers $1)
INSERT INTO peers (name, suspended) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET suspended = excluded.suspended;

-- Suspended as well: whatever reads only one of the two marks still refuses.
-- write: revoke-peer (changes peers $1)
INSERT INTO peers (name, revoked, suspended) VALUES ($1, $2, 1)
ON CONFLICT (name) DO UPDATE SET revoked = excluded.revoked, suspended = 1, roots = NULL, bundle_time = NULL, catalogue = NULL;

-- A number is a time in microseconds, or one more than the last. One from a time to come (the clock was wrong) is left behind.
-- write: next-sequence
INSERT INTO sequences (name, value) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET
  value = CASE WHEN sequences.value > excluded.value + 60000000 OR sequences.value < excluded.value THEN excluded.value
    ELSE sequences.value + 1 END RETURNING value;
