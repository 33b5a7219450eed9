-- write: establish-peer
INSERT INTO peers (name, object, roots, bundle_sequence, bundle_time) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET object = excluded.object, roots = excluded.roots,
  bundle_sequence = excluded.bundle_sequence, bundle_time = excluded.bundle_time, suspended = 0, revoked = NULL,
  catalogue = NULL, catalogue_sequence = 0, pushed_digest = '';

-- read: peer
SELECT name, object, roots, bundle_sequence, bundle_time, suspended, revoked, catalogue, pushed_sequence, pushed_digest
FROM peers WHERE name = ?;

-- read: peers
SELECT name, object, roots, bundle_sequence, bundle_time, suspended, revoked, catalogue, pushed_sequence, pushed_digest
FROM peers ORDER BY name;

-- Sequence 0 is a peer that does not count; any other number stands for one set of roots for ever.
-- write: set-bundle
INSERT INTO peers (name, roots, bundle_sequence, bundle_time) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET roots = excluded.roots, bundle_sequence = excluded.bundle_sequence,
  bundle_time = excluded.bundle_time
WHERE revoked IS NULL AND (excluded.bundle_sequence > bundle_sequence OR (excluded.bundle_sequence = bundle_sequence
  AND (bundle_sequence = 0 OR roots IS NULL OR roots = excluded.roots)));

-- write: set-catalogue
INSERT INTO peers (name, catalogue, catalogue_sequence) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET catalogue = excluded.catalogue, catalogue_sequence = excluded.catalogue_sequence
WHERE revoked IS NULL AND (catalogue IS NULL OR excluded.catalogue_sequence > catalogue_sequence
  OR (excluded.catalogue_sequence = catalogue_sequence AND excluded.catalogue = catalogue));

-- write: set-suspended
INSERT INTO peers (name, suspended) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET suspended = excluded.suspended;

-- write: set-pushed
INSERT INTO peers (name, pushed_sequence, pushed_digest) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET pushed_sequence = excluded.pushed_sequence, pushed_digest = excluded.pushed_digest
WHERE revoked IS NULL AND excluded.pushed_sequence >= pushed_sequence;

-- write: revoke-peer
INSERT INTO peers (name, revoked) VALUES (?, ?)
ON CONFLICT (name) DO UPDATE SET revoked = excluded.revoked, roots = NULL, bundle_time = NULL, catalogue = NULL;

-- write: forget-peer
DELETE FROM peers WHERE name = ?;

-- write: next-sequence
INSERT INTO sequences (name, value) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value;
