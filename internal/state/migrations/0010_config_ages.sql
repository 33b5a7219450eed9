-- +goose Up
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
