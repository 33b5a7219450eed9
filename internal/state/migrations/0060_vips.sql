-- +goose Up
-- An address stays with its host after the host is gone, until another one needs it; a namespace is bounded. What was given
-- out before names no namespace and is given out anew.
DROP TABLE vips;
CREATE TABLE vips (
  host      TEXT PRIMARY KEY,
  namespace TEXT NOT NULL,
  address   TEXT NOT NULL UNIQUE,
  gone      INTEGER, -- since when nobody writes the host
  sum       INTEGER NOT NULL AS (isthmus_sum(host, namespace, address, gone)) STORED
) STRICT;
