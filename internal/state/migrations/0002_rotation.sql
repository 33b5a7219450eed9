-- +goose Up
-- Which root an issued certificate leads to: SHA-256 of the root, empty for those issued before this was kept.
CREATE TABLE certs_with_root (
  fingerprint BLOB PRIMARY KEY, -- SHA-256 of the DER
  serial      BLOB NOT NULL,
  spiffe_id   TEXT NOT NULL,
  node        TEXT NOT NULL,
  not_before  INTEGER NOT NULL,
  not_after   INTEGER NOT NULL,
  root        BLOB NOT NULL,
  sum         INTEGER NOT NULL AS (isthmus_sum(fingerprint, serial, spiffe_id, node, not_before, not_after, root)) STORED
) STRICT;
INSERT INTO certs_with_root (fingerprint, serial, spiffe_id, node, not_before, not_after, root)
SELECT fingerprint, serial, spiffe_id, node, not_before, not_after, x'' FROM certs;
DROP TABLE certs;
ALTER TABLE certs_with_root RENAME TO certs;
CREATE INDEX certs_not_after ON certs (not_after);

-- The rotation of the root that is under way, or the last one.
CREATE TABLE rotation (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  step     TEXT NOT NULL,
  old_root BLOB NOT NULL, -- SHA-256
  new_root BLOB NOT NULL, -- SHA-256
  began    INTEGER NOT NULL,
  since    INTEGER NOT NULL, -- of the step
  passed   TEXT NOT NULL, -- JSON list: whom an administrator's --force left behind
  sum      INTEGER NOT NULL AS (isthmus_sum(one, step, old_root, new_root, began, since, passed)) STORED
) STRICT;
