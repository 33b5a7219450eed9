-- +goose Up
-- What a token grants, and then the node: identities, workloads and addresses, a grant.Grant as JSON.
ALTER TABLE tokens RENAME COLUMN identities TO grants;
ALTER TABLE nodes RENAME COLUMN identities TO grants;
UPDATE tokens SET grants = json_object('identities', json(grants));
UPDATE nodes SET grants = json_object('identities', json(grants));

-- A workload's name is one node's: the one that had it first.
DELETE FROM workloads WHERE rowid NOT IN (SELECT min(rowid) FROM workloads GROUP BY namespace, name);
CREATE UNIQUE INDEX workloads_name ON workloads (namespace, name);
