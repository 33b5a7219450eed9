-- +goose Up
-- Every table has a column "sum": a checksum of all its other columns in their order, written by SQLite itself and
-- compared whenever the file is opened, so that a flipped bit inside a row is found too. A table that gains a column is made
-- anew with a new sum. Times are microseconds since 1970, NULL for never.

CREATE TABLE blobs (
  name    TEXT PRIMARY KEY,
  cert    BLOB NOT NULL,
  key     BLOB NOT NULL, -- encrypted
  created INTEGER NOT NULL,
  sum     INTEGER NOT NULL AS (isthmus_sum(name, cert, key, created)) STORED
) STRICT;

-- Join tokens, with who made each and when it was cancelled.
CREATE TABLE tokens (
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

CREATE TABLE invites (
  id      TEXT PRIMARY KEY,
  hash    BLOB NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the secret
  peer    TEXT NOT NULL,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  used_at INTEGER,
  used_by TEXT NOT NULL DEFAULT '',
  sum     INTEGER NOT NULL AS (isthmus_sum(id, hash, peer, created, expires, used_at, used_by)) STORED
) STRICT;

-- Refusals of those who may not do what they tried: equal ones folded into one row, so that a flood of them cannot fill the
-- disk nor hide anything among the events.
CREATE TABLE refusals (
  actor    TEXT NOT NULL CHECK (length(actor) BETWEEN 1 AND 256),
  origin   TEXT NOT NULL CHECK (length(origin) <= 128),
  action   TEXT NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
  object   TEXT NOT NULL CHECK (length(object) <= 512),
  detail   TEXT NOT NULL CHECK (length(detail) <= 1024),
  first_at INTEGER NOT NULL,
  last_at  INTEGER NOT NULL,
  times    INTEGER NOT NULL,
  sum      INTEGER NOT NULL AS (isthmus_sum(actor, origin, action, object, detail, first_at, last_at, times)) STORED,
  PRIMARY KEY (actor, origin, action, object, detail)
) STRICT;

-- Each joining gives a node a new generation: the ID of the token that it joined with. Its certificates carry it, and only
-- those of the generation that stands here are believed.
CREATE TABLE nodes (
  name       TEXT PRIMARY KEY,
  role       TEXT NOT NULL CHECK (role IN ('node', 'gateway')),
  generation TEXT NOT NULL,
  grants     TEXT NOT NULL, -- grant.Grant, JSON
  gateway    TEXT, -- snapshot.GatewayInfo, JSON
  reached    TEXT, -- the control plane's address by which a gateway's agent reached it
  builtin    TEXT NOT NULL DEFAULT '', -- version of the built-in parts of Envoy's configuration that its agent has
  attested   INTEGER NOT NULL,
  last_seen  INTEGER,
  revoked    INTEGER,
  conversations INTEGER NOT NULL DEFAULT 0, -- that have begun; each is numbered
  conversation  INTEGER NOT NULL DEFAULT 0, -- in which it spoke last
  sum        INTEGER NOT NULL AS (isthmus_sum(name, role, generation, grants, gateway, reached, builtin, attested, last_seen, revoked, conversations,
                 conversation)) STORED
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

-- Whose an address is. Workloads of one node may share it.
CREATE TABLE workload_addresses (
  address TEXT PRIMARY KEY,
  node    TEXT NOT NULL REFERENCES nodes (name) ON DELETE CASCADE,
  sum     INTEGER NOT NULL AS (isthmus_sum(address, node)) STORED
) STRICT;
CREATE INDEX workload_addresses_node ON workload_addresses (node);

-- The conversations that agents have with control planes.
CREATE TABLE agents (
  node         TEXT PRIMARY KEY REFERENCES nodes (name) ON DELETE CASCADE,
  conversation INTEGER NOT NULL,
  holder       TEXT NOT NULL, -- the control plane
  report       BLOB NOT NULL,
  sum     INTEGER NOT NULL AS (isthmus_sum(node, conversation, holder, report)) STORED
) STRICT;

-- What only one control plane may do, and which one that is. A lease ends by the database's clock.
CREATE TABLE leases (
  name    TEXT PRIMARY KEY,
  holder  TEXT NOT NULL,
  token   INTEGER NOT NULL,
  expires INTEGER NOT NULL,
  data    BLOB NOT NULL,
  sum     INTEGER NOT NULL AS (isthmus_sum(name, holder, token, expires, data)) STORED
) STRICT;

-- An address stays with its host after the host is gone, until another one needs it; a namespace is bounded.
CREATE TABLE vips (
  host      TEXT PRIMARY KEY,
  namespace TEXT NOT NULL,
  address   TEXT NOT NULL UNIQUE,
  gone      INTEGER, -- since when nobody writes the host
  sum       INTEGER NOT NULL AS (isthmus_sum(host, namespace, address, gone)) STORED
) STRICT;

-- When a peering was made by token is its age. What orders catalogues stands in them.
CREATE TABLE peers (
  name            TEXT PRIMARY KEY,
  object          TEXT, -- MeshPeer made by token, JSON; NULL when its object is a file
  made            INTEGER, -- when it was made by token
  roots           BLOB, -- PEM
  bundle_sequence INTEGER NOT NULL DEFAULT 0,
  bundle_time     INTEGER,
  suspended       INTEGER NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1)),
  revoked         INTEGER,
  catalogue       TEXT, -- snapshot.Catalogue, JSON
  catalogue_number TEXT NOT NULL DEFAULT '0', -- its sequence, which may have 64 bits
  readiness        TEXT, -- snapshot.Readiness, JSON
  readiness_number TEXT NOT NULL DEFAULT '0',
  sum             INTEGER NOT NULL AS (isthmus_sum(name, object, made, roots, bundle_sequence, bundle_time, suspended, revoked,
                    catalogue, catalogue_number, readiness, readiness_number)) STORED
) STRICT;

CREATE TABLE bootstraps (
  id      TEXT PRIMARY KEY,
  address TEXT NOT NULL,
  expires INTEGER NOT NULL,
  sum     INTEGER NOT NULL AS (isthmus_sum(id, address, expires)) STORED
) STRICT;

CREATE TABLE sequences (
  name  TEXT PRIMARY KEY,
  value INTEGER NOT NULL,
  of    TEXT NOT NULL, -- what it stands for; empty: nothing that lasts
  sum   INTEGER NOT NULL AS (isthmus_sum(name, value, of)) STORED
) STRICT;

-- Which root a certificate leads to: SHA-256 of the root.
CREATE TABLE certs (
  fingerprint BLOB PRIMARY KEY, -- SHA-256 of the DER
  serial      BLOB NOT NULL,
  spiffe_id   TEXT NOT NULL,
  node        TEXT NOT NULL,
  not_before  INTEGER NOT NULL,
  not_after   INTEGER NOT NULL,
  root        BLOB NOT NULL,
  sum         INTEGER NOT NULL AS (isthmus_sum(fingerprint, serial, spiffe_id, node, not_before, not_after, root)) STORED
) STRICT;
CREATE INDEX certs_not_after ON certs (not_after);

-- The rotation of the root that is under way, or the last one.
CREATE TABLE rotation (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  step     TEXT NOT NULL,
  old_root BLOB NOT NULL, -- SHA-256
  new_root BLOB NOT NULL, -- SHA-256
  signing  BLOB NOT NULL, -- the root that signs, SHA-256
  began    INTEGER NOT NULL,
  since    INTEGER NOT NULL, -- of the step
  passed   TEXT NOT NULL, -- JSON list: whom an administrator's --force left behind
  sum      INTEGER NOT NULL AS (isthmus_sum(one, step, old_root, new_root, signing, began, since, passed)) STORED
) STRICT;

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

-- What was done and by whom, in the order in which it was written down. Rows are added and never changed; those older than
-- the retention (400 days before the newest) may be removed. Each row's link is a SHA-256 over the row before and its own
-- content, so that a row taken out or changed in between is found when the file is opened.
CREATE TABLE events (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  time    INTEGER NOT NULL,
  actor   TEXT NOT NULL CHECK (length(actor) BETWEEN 1 AND 256),
  origin  TEXT NOT NULL CHECK (length(origin) <= 128),
  action  TEXT NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
  object  TEXT NOT NULL CHECK (length(object) <= 512),
  outcome TEXT NOT NULL CHECK (outcome IN ('begun', 'ok', 'failed', 'refused')),
  detail  TEXT NOT NULL CHECK (length(detail) <= 1024),
  of      INTEGER UNIQUE, -- the event that began what ends here
  link    BLOB NOT NULL CHECK (length(link) = 32),
  sum     INTEGER NOT NULL AS (isthmus_sum(seq, time, actor, origin, action, object, outcome, detail, of, link)) STORED
) STRICT;
CREATE INDEX events_time ON events (time);

-- +goose StatementBegin
CREATE TRIGGER events_stay_as_they_are BEFORE UPDATE ON events BEGIN
  SELECT raise(ABORT, 'an event is never changed');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER events_stay BEFORE DELETE ON events
WHEN old.time > (SELECT max(time) FROM events) - 400 * 86400 * 1000000 OR old.seq > (SELECT max(seq) FROM events) - 1000 BEGIN
  SELECT raise(ABORT, 'an event is kept for 400 days, and so are the last thousand');
END;
-- +goose StatementEnd

-- When each object of the configuration was first seen in a file, so that who was first stays first across restarts.
CREATE TABLE config_ages (
  kind       TEXT NOT NULL,
  namespace  TEXT NOT NULL,
  name       TEXT NOT NULL,
  file       TEXT NOT NULL, -- inside the configuration folder, percent-encoded
  first_seen INTEGER NOT NULL,
  sum        INTEGER NOT NULL AS (isthmus_sum(kind, namespace, name, file, first_seen)) STORED,
  PRIMARY KEY (kind, namespace, name, file)
) STRICT;

-- Objects that a proxy could not live with: there they are closed until their content changes.
CREATE TABLE quarantine (
  proxy     TEXT NOT NULL,
  kind      TEXT NOT NULL,
  namespace TEXT NOT NULL,
  name      TEXT NOT NULL,
  content   TEXT NOT NULL, -- SHA-256 of what the object says, hex
  reason    TEXT NOT NULL,
  since     INTEGER NOT NULL,
  sum       INTEGER NOT NULL AS (isthmus_sum(proxy, kind, namespace, name, content, reason, since)) STORED,
  PRIMARY KEY (proxy, kind, namespace, name)
) STRICT;

-- The checksum of the schema itself, written after each migration.
CREATE TABLE schema_sum (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  sum INTEGER NOT NULL
) STRICT;
