-- write: add-event
WITH head AS (
  UPDATE event_head SET seq = seq + 1, link = isthmus_link(link, $1::bigint::text, $2::text, $3::text, $4::text, $5::text,
    $6::text, $7::text, $8::bigint::text)
  RETURNING seq, link)
INSERT INTO events (seq, time, actor, origin, action, object, outcome, detail, of, link)
SELECT seq, $1::bigint, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::bigint, link FROM head
RETURNING seq;

-- Whoever writes an object's age first decides. Two control planes see files at different moments.
-- write: put-config-ages
INSERT INTO config_ages (kind, namespace, name, file, first_seen)
SELECT value->>0, value->>1, value->>2, value->>3, (value->>4)::bigint FROM json_array_elements($1::json)
ON CONFLICT (kind, namespace, name, file) DO NOTHING;

-- write: config-ages-of
SELECT kind, namespace, name, file, first_seen FROM config_ages WHERE (kind, namespace, name, file) IN
  (SELECT value->>0, value->>1, value->>2, value->>3 FROM json_array_elements($1::json));

-- write: delete-config-ages (changes ages)
DELETE FROM config_ages WHERE (kind, namespace, name, file) IN
  (SELECT value->>0, value->>1, value->>2, value->>3 FROM json_array_elements($1::json));

-- Certificates that still stand and lead to a root, the longest-lived of each identity at each node.
-- read: certs-under
SELECT node, spiffe_id, max(not_after) FROM certs WHERE not_after > $1 AND root = $2
  AND NOT EXISTS (SELECT 1 FROM admins WHERE admins.serial = encode(certs.serial, 'hex') AND revoked IS NOT NULL)
GROUP BY node, spiffe_id ORDER BY node, spiffe_id;

-- A name that another node has is not taken from it.
-- write: add-workloads
INSERT INTO workloads (node, namespace, name, workload)
SELECT $1::text, value->>0, value->>1, value->>2 FROM json_array_elements($2::json) WHERE true ON CONFLICT DO NOTHING;

-- Workloads of one node may share an address.
-- write: add-addresses
INSERT INTO workload_addresses (address, node) SELECT DISTINCT value->>0, $1::text FROM json_array_elements($2::json) WHERE true
ON CONFLICT DO NOTHING;

-- By the database's clock, which is the same for all.
-- write: acquire-lease
INSERT INTO leases (name, holder, token, expires, data) VALUES ($1, $2, 1, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + $3::bigint, $4)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires = excluded.expires, data = excluded.data,
  token = CASE WHEN leases.holder = excluded.holder AND leases.expires > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint THEN leases.token ELSE leases.token + 1 END
WHERE leases.holder = excluded.holder OR leases.expires <= (extract(epoch FROM clock_timestamp()) * 1000000)::bigint RETURNING token;

-- write: held-lease
SELECT count(*) FROM leases WHERE name = $1 AND holder = $2 AND token = $3 AND expires > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;

-- read: leases
SELECT name, holder, token, data FROM leases WHERE name >= $1 AND name < $1::text || '~' AND expires > (extract(epoch FROM clock_timestamp()) * 1000000)::bigint ORDER BY name;
