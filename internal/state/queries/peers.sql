-- write: establish-peer
INSERT INTO peers (name, object, made, roots, bundle_sequence, bundle_time) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET object = excluded.object, made = excluded.made, roots = excluded.roots,
  bundle_sequence = excluded.bundle_sequence, bundle_time = excluded.bundle_time, suspended = 0, revoked = NULL, catalogue = NULL;

-- read: peer
SELECT name, object, made, roots, bundle_sequence, bundle_time, suspended, revoked, catalogue FROM peers WHERE name = ?;

-- read: peers
SELECT name, object, made, roots, bundle_sequence, bundle_time, suspended, revoked, catalogue FROM peers ORDER BY name;

-- write: set-bundle
INSERT INTO peers (name, roots, bundle_sequence, bundle_time) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET roots = excluded.roots, bundle_sequence = excluded.bundle_sequence,
  bundle_time = excluded.bundle_time WHERE revoked IS NULL;

-- What grew from another first trust goes, a peering by token too. A suspension stays.
-- write: adopt-roots
INSERT INTO peers (name, roots, bundle_time) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET object = NULL, made = NULL, roots = excluded.roots, bundle_sequence = 0,
  bundle_time = excluded.bundle_time, catalogue = NULL WHERE revoked IS NULL;

-- write: set-catalogue
INSERT INTO peers (name, catalogue) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET catalogue = excluded.catalogue WHERE revoked IS NULL;

-- write: set-peer-object
UPDATE peers SET object = ? WHERE name = ? AND object IS NOT NULL AND revoked IS NULL;

-- write: set-suspended
INSERT INTO peers (name, suspended) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET suspended = excluded.suspended;

-- Suspended as well: whatever reads only one of the two marks still refuses.
-- write: revoke-peer
INSERT INTO peers (name, revoked, suspended) VALUES (?, ?, 1)
ON CONFLICT (name) DO UPDATE SET revoked = excluded.revoked, suspended = 1, roots = NULL, bundle_time = NULL, catalogue = NULL;

-- A number is a time in microseconds, or one more than the last. One from a time to come (the clock was wrong) is left behind.
-- write: next-sequence
INSERT INTO sequences (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET
  value = CASE WHEN value > excluded.value + 60000000 THEN excluded.value ELSE max(value + 1, excluded.value) END RETURNING value;
