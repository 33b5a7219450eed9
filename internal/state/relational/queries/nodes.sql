-- The generation is the token's ID. A token that was cancelled after its use, because its node was revoked, lets nobody in.
-- What is said in a conversation that began before does not count any more: whoever holds it may be the one who was shut out.
-- write: attest-node (changes nodes $1)
INSERT INTO nodes (name, role, generation, grants, attested, last_seen)
SELECT $1, $2, $3, $4, $5, $5 WHERE NOT EXISTS (SELECT 1 FROM tokens WHERE id = $3 AND cancelled IS NOT NULL)
ON CONFLICT (name) DO UPDATE SET role = excluded.role, generation = excluded.generation, grants = excluded.grants,
  attested = excluded.attested, last_seen = excluded.last_seen, revoked = NULL,
  conversations = nodes.conversations + 1, conversation = nodes.conversations + 1,
  gateway = CASE WHEN nodes.role = excluded.role THEN nodes.gateway END,
  reached = CASE WHEN nodes.role = excluded.role THEN nodes.reached END;

-- read: node
SELECT name, role, generation, grants, gateway, reached, builtin, attested, last_seen, revoked FROM nodes WHERE name = $1;

-- read: nodes
SELECT name, role, generation, grants, gateway, reached, builtin, attested, last_seen, revoked FROM nodes ORDER BY name;

-- write: register-node (changes nodes $4)
UPDATE nodes SET gateway = $1, reached = $2, last_seen = $3, conversation = $5, builtin = $6
WHERE name = $4 AND revoked IS NULL AND conversation <= $5;

-- write: begin-conversation
UPDATE nodes SET conversations = conversations + 1 WHERE name = $1 AND generation = $2 AND revoked IS NULL RETURNING conversations;

-- write: conversation-of
SELECT conversation FROM nodes WHERE name = $1 AND revoked IS NULL;

-- read: registration
SELECT name, role, gateway, reached, builtin, conversation, generation FROM nodes WHERE name = $1 AND revoked IS NULL;

-- read: workloads-of
SELECT workload FROM workloads WHERE node = $1 ORDER BY namespace, name;

-- write: revoke-node (changes nodes $2)
UPDATE nodes SET revoked = coalesce(revoked, $1), gateway = NULL, reached = NULL WHERE name = $2;

-- write: delete-workloads
DELETE FROM workloads WHERE node = $1;

-- write: delete-addresses
DELETE FROM workload_addresses WHERE node = $1;

-- read: workloads
SELECT workload FROM workloads ORDER BY node, namespace, name;

-- read: node-of
SELECT name, role, generation, grants, gateway, reached, builtin, attested, last_seen, revoked FROM nodes WHERE generation = $1;

-- write: put-agent (changes agents $1)
INSERT INTO agents (node, conversation, holder, report) VALUES ($1, $2, $3, $4)
ON CONFLICT (node) DO UPDATE SET conversation = excluded.conversation, holder = excluded.holder, report = excluded.report
WHERE agents.conversation <= excluded.conversation;

-- write: end-agent (changes agents $1)
DELETE FROM agents WHERE node = $1 AND conversation = $2;

-- read: agent
SELECT node, conversation, holder, report FROM agents WHERE node = $1;

-- read: agents
SELECT node, conversation, holder, report FROM agents ORDER BY node;
