-- write: add-event
INSERT INTO events (time, actor, origin, action, object, outcome, detail, of, link)
SELECT $1, $2, $3, $4, $5, $6, $7, $8,
  isthmus_link((SELECT link FROM events ORDER BY seq DESC LIMIT 1), $1, $2, $3, $4, $5, $6, $7, $8)
RETURNING seq;

-- Whoever writes an object's age first decides. Two control planes see files at different moments.
-- write: put-config-ages
INSERT INTO config_ages (kind, namespace, name, file, first_seen)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4 FROM json_each($1) WHERE true
ON CONFLICT (kind, namespace, name, file) DO NOTHING;

-- write: config-ages-of
SELECT kind, namespace, name, file, first_seen FROM config_ages WHERE (kind, namespace, name, file) IN
  (SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each($1));

-- write: delete-config-ages (changes ages)
DELETE FROM config_ages WHERE (kind, namespace, name, file) IN
  (SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each($1));

-- Certificates that still stand and lead to a root, the longest-lived of each identity at each node.
-- read: certs-under
SELECT node, spiffe_id, max(not_after) FROM certs WHERE not_after > $1 AND root = $2
  AND NOT EXISTS (SELECT 1 FROM admins WHERE admins.serial = lower(hex(certs.serial)) AND revoked IS NOT NULL)
GROUP BY node, spiffe_id ORDER BY node, spiffe_id;

-- A name that another node has is not taken from it.
-- write: add-workloads
INSERT INTO workloads (node, namespace, name, workload)
SELECT $1, value->>0, value->>1, value->>2 FROM json_each($2) WHERE true ON CONFLICT DO NOTHING;

-- Workloads of one node may share an address.
-- write: add-addresses
INSERT INTO workload_addresses (address, node) SELECT DISTINCT value->>0, $1 FROM json_each($2) WHERE true
ON CONFLICT DO NOTHING;

-- By the database's clock, which is the same for all.
-- write: acquire-lease
INSERT INTO leases (name, holder, token, expires, data) VALUES ($1, $2, 1, CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $3, $4)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires, data = excluded.data,
  token = CASE WHEN leases.holder = excluded.holder AND leases.expires > CAST(unixepoch('subsec') * 1000000 AS INTEGER) THEN leases.token ELSE leases.token + 1 END
WHERE leases.holder = excluded.holder OR leases.expires <= CAST(unixepoch('subsec') * 1000000 AS INTEGER) RETURNING token;

-- write: held-lease
SELECT count(*) FROM leases WHERE name = $1 AND holder = $2 AND token = $3 AND expires > CAST(unixepoch('subsec') * 1000000 AS INTEGER);

-- read: leases
SELECT name, holder, token, data FROM leases WHERE name >= $1 AND name < $1 || '~' AND expires > CAST(unixepoch('subsec') * 1000000 AS INTEGER) ORDER BY name;
