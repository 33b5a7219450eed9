-- +goose Up
-- Each joining gives a node a new generation: the ID of the token that it joined with. Its certificates carry it, and only
-- those of the generation that stands here are believed. Nodes that joined before there were generations join again.
DROP TABLE workloads;
DROP TABLE nodes;
CREATE TABLE nodes (
  name       TEXT PRIMARY KEY,
  role       TEXT NOT NULL CHECK (role IN ('node', 'gateway')),
  generation TEXT NOT NULL,
  grants     TEXT NOT NULL, -- grant.Grant, JSON
  gateway    TEXT, -- snapshot.GatewayInfo, JSON
  attested   INTEGER NOT NULL,
  last_seen  INTEGER,
  revoked    INTEGER,
  sum        INTEGER NOT NULL AS (isthmus_sum(name, role, generation, grants, gateway, attested, last_seen, revoked)) STORED
) STRICT;
CREATE INDEX nodes_generation ON nodes (generation);
CREATE TABLE workloads (
  node      TEXT NOT NULL REFERENCES nodes (name) ON DELETE CASCADE,
  namespace TEXT NOT NULL,
  name      TEXT NOT NULL,
  workload  TEXT NOT NULL, -- snapshot.Workload, JSON
  sum       INTEGER NOT NULL AS (isthmus_sum(node, namespace, name, workload)) STORED,
  PRIMARY KEY (node, namespace, name)
) STRICT;
CREATE UNIQUE INDEX workloads_name ON workloads (namespace, name); -- a workload's name is one node's: the one that had it first

-- Who made a token, and when it was cancelled.
CREATE TABLE tokens_made (
  id         TEXT PRIMARY KEY,
  hash       BLOB NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the secret
  node       TEXT NOT NULL,
  role       TEXT NOT NULL CHECK (role IN ('node', 'gateway')),
  grants     TEXT NOT NULL, -- grant.Grant, JSON
  created    INTEGER NOT NULL,
  made_by    TEXT NOT NULL,
  expires    INTEGER NOT NULL,
  cancelled  INTEGER,
  used_at    INTEGER,
  used_by    TEXT NOT NULL DEFAULT '',
  sum        INTEGER NOT NULL AS (isthmus_sum(id, hash, node, role, grants, created, made_by, expires, cancelled, used_at, used_by)) STORED
) STRICT;
INSERT INTO tokens_made (id, hash, node, role, grants, created, made_by, expires, used_at, used_by)
SELECT id, hash, node, role, grants, created, '', expires, used_at, used_by FROM tokens;
DROP TABLE tokens;
ALTER TABLE tokens_made RENAME TO tokens;

-- Administrators' certificates. One that is not here is not believed.
CREATE TABLE admins (
  generation TEXT PRIMARY KEY,
  name       TEXT NOT NULL,
  serial     TEXT NOT NULL, -- hex
  created    INTEGER NOT NULL,
  made_by    TEXT NOT NULL,
  not_after  INTEGER NOT NULL,
  revoked    INTEGER,
  sum        INTEGER NOT NULL AS (isthmus_sum(generation, name, serial, created, made_by, not_after, revoked)) STORED
) STRICT;
