-- +goose Up
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
