-- write: attest-node
INSERT INTO nodes (name, role, grants, attested, last_seen) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET role = excluded.role, grants = excluded.grants, attested = excluded.attested,
  last_seen = excluded.last_seen, revoked = NULL, gateway = CASE WHEN role = excluded.role THEN gateway END;

-- read: node
SELECT name, role, grants, gateway, attested, last_seen, revoked FROM nodes WHERE name = ?;

-- read: nodes
SELECT name, role, grants, gateway, attested, last_seen, revoked FROM nodes ORDER BY name;

-- write: seen-node
UPDATE nodes SET last_seen = ? WHERE name = ?;

-- write: register-node
UPDATE nodes SET gateway = ?, last_seen = ? WHERE name = ? AND revoked IS NULL;

-- write: revoke-node
UPDATE nodes SET revoked = ?, gateway = NULL WHERE name = ?;

-- write: delete-node
DELETE FROM nodes WHERE name = ?;

-- write: delete-workloads
DELETE FROM workloads WHERE node = ?;

-- write: add-workload
INSERT INTO workloads (node, namespace, name, workload) VALUES (?, ?, ?, ?);

-- read: workloads
SELECT workload FROM workloads ORDER BY node, namespace, name;
