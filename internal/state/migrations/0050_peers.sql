-- +goose Up
-- When a peering was made by token is its age. What orders catalogues stands in them; what a peer took of ours is not kept.
CREATE TABLE peers_aged (
  name            TEXT PRIMARY KEY,
  object          TEXT, -- MeshPeer made by token, JSON; NULL when its object is a file
  made            INTEGER, -- when it was made by token
  roots           BLOB, -- PEM
  bundle_sequence INTEGER NOT NULL DEFAULT 0,
  bundle_time     INTEGER,
  suspended       INTEGER NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1)),
  revoked         INTEGER,
  catalogue       TEXT, -- snapshot.Catalogue, JSON
  sum             INTEGER NOT NULL AS (isthmus_sum(name, object, made, roots, bundle_sequence, bundle_time, suspended, revoked,
                    catalogue)) STORED
) STRICT;
INSERT INTO peers_aged (name, object, made, roots, bundle_sequence, bundle_time, suspended, revoked, catalogue)
SELECT name, object, CASE WHEN object IS NULL THEN NULL ELSE bundle_time END, roots, bundle_sequence, bundle_time, suspended, revoked, catalogue
FROM peers;
DROP TABLE peers;
ALTER TABLE peers_aged RENAME TO peers;
