-- write: establish-peer (changes peers $1)
INSERT INTO peers (name, object, made, roots, bundle_sequence, bundle_time) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (name) DO UPDATE SET object = excluded.object, made = excluded.made, roots = excluded.roots,
  bundle_sequence = excluded.bundle_sequence, bundle_time = excluded.bundle_time, suspended = 0, revoked = NULL,
  catalogue = NULL, catalogue_number = '0', readiness = NULL, readiness_number = '0';

-- read: peers
SELECT name, object, made, roots, bundle_sequence, bundle_time, suspended, revoked, catalogue, readiness FROM peers ORDER BY name;

-- write: set-bundle (changes peers $1)
INSERT INTO peers (name, roots, bundle_sequence, bundle_time) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET roots = excluded.roots, bundle_sequence = excluded.bundle_sequence,
  bundle_time = excluded.bundle_time WHERE peers.revoked IS NULL AND peers.bundle_sequence = $5;

-- What grew from another first trust goes, a peering by token too. A suspension stays.
-- write: adopt-roots (changes peers $1)
INSERT INTO peers (name, roots, bundle_time) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET object = NULL, made = NULL, roots = excluded.roots, bundle_sequence = 0,
  bundle_time = excluded.bundle_time, catalogue = NULL, catalogue_number = '0', readiness = NULL, readiness_number = '0'
WHERE peers.revoked IS NULL;

-- write: set-catalogue (changes peers $1)
INSERT INTO peers (name, catalogue, catalogue_number) VALUES ($1, $2, $3)
ON CONFLICT (name) DO UPDATE SET catalogue = excluded.catalogue, catalogue_number = excluded.catalogue_number
WHERE peers.revoked IS NULL AND peers.catalogue_number = $4;

-- write: set-readiness (changes peers $1)
UPDATE peers SET readiness = $2, readiness_number = $3 WHERE name = $1 AND revoked IS NULL AND readiness_number = $4;

-- write: revoked-peer
SELECT count(*) FROM peers WHERE name = $1 AND revoked IS NOT NULL;

-- write: set-peer-object (changes peers $2)
UPDATE peers SET object = $1 WHERE name = $2 AND object IS NOT NULL AND revoked IS NULL;

-- write: set-suspended (changes peers $1)
INSERT INTO peers (name, suspended) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET suspended = excluded.suspended;

-- Suspended as well: whatever reads only one of the two marks still refuses.
-- write: revoke-peer (changes peers $1)
INSERT INTO peers (name, revoked, suspended) VALUES ($1, $2, 1)
ON CONFLICT (name) DO UPDATE SET revoked = excluded.revoked, suspended = 1, roots = NULL, bundle_time = NULL, catalogue = NULL,
  catalogue_number = '0', readiness = NULL, readiness_number = '0';

-- A number is a time in microseconds, or one more than the last. One from a time to come (the clock was wrong) is left
-- behind. What it stands for keeps it until the name is asked for something else.
-- write: next-sequence
INSERT INTO sequences (name, value, of) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET
  value = CASE WHEN excluded.of <> '' AND sequences.of = excluded.of THEN sequences.value
    WHEN sequences.value > excluded.value + 60000000 OR sequences.value < excluded.value THEN excluded.value
    ELSE sequences.value + 1 END,
  of = excluded.of RETURNING value;
