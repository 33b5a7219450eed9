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

CREATE TABLE tokens (
  id         TEXT PRIMARY KEY,
  hash       BLOB NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the secret
  node       TEXT NOT NULL,
  role       TEXT NOT NULL CHECK (role IN ('node', 'gateway')),
  identities TEXT NOT NULL, -- JSON list
  created    INTEGER NOT NULL,
  expires    INTEGER NOT NULL,
  used_at    INTEGER,
  used_by    TEXT NOT NULL DEFAULT '',
  sum        INTEGER NOT NULL AS (isthmus_sum(id, hash, node, role, identities, created, expires, used_at, used_by)) STORED
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

-- Refused uses of tokens and invitations, folded so that a flood of them cannot fill the disk.
CREATE TABLE refusals (
  what   TEXT NOT NULL CHECK (what IN ('token', 'invite')),
  id     TEXT NOT NULL, -- empty for all that named nothing known
  reason TEXT NOT NULL,
  who    TEXT NOT NULL, -- who tried last
  first_at INTEGER NOT NULL,
  last_at  INTEGER NOT NULL,
  times  INTEGER NOT NULL,
  sum    INTEGER NOT NULL AS (isthmus_sum(what, id, reason, who, first_at, last_at, times)) STORED,
  PRIMARY KEY (what, id, reason)
) STRICT;

CREATE TABLE nodes (
  name       TEXT PRIMARY KEY,
  role       TEXT NOT NULL CHECK (role IN ('node', 'gateway')),
  identities TEXT NOT NULL, -- JSON list
  gateway    TEXT, -- snapshot.GatewayInfo, JSON
  attested   INTEGER NOT NULL,
  last_seen  INTEGER,
  revoked    INTEGER,
  sum        INTEGER NOT NULL AS (isthmus_sum(name, role, identities, gateway, attested, last_seen, revoked)) STORED
) STRICT;

CREATE TABLE workloads (
  node      TEXT NOT NULL REFERENCES nodes (name) ON DELETE CASCADE,
  namespace TEXT NOT NULL,
  name      TEXT NOT NULL,
  workload  TEXT NOT NULL, -- snapshot.Workload, JSON
  sum       INTEGER NOT NULL AS (isthmus_sum(node, namespace, name, workload)) STORED,
  PRIMARY KEY (node, namespace, name)
) STRICT;

CREATE TABLE vips (
  host    TEXT NOT NULL,
  family  INTEGER NOT NULL CHECK (family IN (4, 6)),
  address TEXT NOT NULL UNIQUE,
  created INTEGER NOT NULL,
  sum     INTEGER NOT NULL AS (isthmus_sum(host, family, address, created)) STORED,
  PRIMARY KEY (host, family)
) STRICT;

CREATE TABLE peers (
  name               TEXT PRIMARY KEY,
  object             TEXT, -- MeshPeer made by token, JSON; NULL when its object is a file
  roots              BLOB, -- PEM
  bundle_sequence    INTEGER NOT NULL DEFAULT 0,
  bundle_time        INTEGER,
  suspended          INTEGER NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1)),
  revoked            INTEGER,
  catalogue          TEXT, -- snapshot.Catalogue, JSON
  catalogue_sequence INTEGER NOT NULL DEFAULT 0,
  pushed_sequence    INTEGER NOT NULL DEFAULT 0,
  pushed_digest      TEXT NOT NULL DEFAULT '',
  sum                INTEGER NOT NULL AS (isthmus_sum(name, object, roots, bundle_sequence, bundle_time, suspended, revoked,
                       catalogue, catalogue_sequence, pushed_sequence, pushed_digest)) STORED
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
  sum   INTEGER NOT NULL AS (isthmus_sum(name, value)) STORED
) STRICT;

CREATE TABLE certs (
  fingerprint BLOB PRIMARY KEY, -- SHA-256 of the DER
  serial      BLOB NOT NULL,
  spiffe_id   TEXT NOT NULL,
  node        TEXT NOT NULL,
  not_before  INTEGER NOT NULL,
  not_after   INTEGER NOT NULL,
  sum         INTEGER NOT NULL AS (isthmus_sum(fingerprint, serial, spiffe_id, node, not_before, not_after)) STORED
) STRICT;
CREATE INDEX certs_not_after ON certs (not_after);

-- The checksum of the schema itself, written after each migration.
CREATE TABLE schema_sum (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  sum INTEGER NOT NULL
) STRICT;
