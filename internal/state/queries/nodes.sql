-- The generation is the token's ID. A token that was cancelled after its use, because its node was revoked, lets nobody in.
-- write: attest-node
INSERT INTO nodes (name, role, generation, grants, attested, last_seen)
SELECT ?1, ?2, ?3, ?4, ?5, ?5 WHERE NOT EXISTS (SELECT 1 FROM tokens WHERE id = ?3 AND cancelled IS NOT NULL)
ON CONFLICT (name) DO UPDATE SET role = excluded.role, generation = excluded.generation, grants = excluded.grants,
  attested = excluded.attested, last_seen = excluded.last_seen, revoked = NULL,
  gateway = CASE WHEN role = excluded.role THEN gateway END,
  reached = CASE WHEN role = excluded.role THEN reached END;

-- read: node
SELECT name, role, generation, grants, gateway, reached, attested, last_seen, revoked FROM nodes WHERE name = ?;

-- read: nodes
SELECT name, role, generation, grants, gateway, reached, attested, last_seen, revoked FROM nodes ORDER BY name;

-- write: seen-node
UPDATE nodes SET last_seen = ? WHERE name = ?;

-- write: register-node
UPDATE nodes SET gateway = ?, reached = ?, last_seen = ? WHERE name = ? AND revoked IS NULL;

-- write: revoke-node
UPDATE nodes SET revoked = coalesce(revoked, ?), gateway = NULL, reached = NULL WHERE name = ?;

-- write: delete-node
DELETE FROM nodes WHERE name = ?;

-- write: delete-workloads
DELETE FROM workloads WHERE node = ?;

-- A name that a revoked node still has here, because the revocation is not written yet, is another's already.
-- write: add-workload
INSERT INTO workloads (node, namespace, name, workload) VALUES (?, ?, ?, ?)
ON CONFLICT (namespace, name) DO UPDATE SET node = excluded.node, workload = excluded.workload WHERE node <> excluded.node;

-- read: workloads
SELECT workload FROM workloads ORDER BY node, namespace, name;

-- read: node-of
SELECT name, role, generation, grants, gateway, reached, attested, last_seen, revoked FROM nodes WHERE generation = ?;
