-- write: add-event
INSERT INTO events (time, actor, origin, action, object, outcome, detail, of, link)
SELECT $1, $2, $3, $4, $5, $6, $7, $8,
  isthmus_link((SELECT link FROM events ORDER BY seq DESC LIMIT 1), $1, $2, $3, $4, $5, $6, $7, $8)
RETURNING seq;

-- write: put-config-ages
INSERT INTO config_ages (kind, namespace, name, file, first_seen)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4 FROM json_each($1) WHERE true
ON CONFLICT (kind, namespace, name, file) DO UPDATE SET first_seen = excluded.first_seen;

-- write: delete-config-ages
DELETE FROM config_ages WHERE (kind, namespace, name, file) IN (SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each($1));

-- Certificates that still stand and lead to a root, the longest-lived of each identity at each node.
-- read: certs-under
SELECT node, spiffe_id, max(not_after) FROM certs WHERE not_after > $1 AND root = $2
  AND NOT EXISTS (SELECT 1 FROM admins WHERE admins.serial = lower(hex(certs.serial)) AND revoked IS NOT NULL)
GROUP BY node, spiffe_id ORDER BY node, spiffe_id;
