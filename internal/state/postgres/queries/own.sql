-- write: add-event
WITH head AS (
  UPDATE event_head SET seq = seq + 1, link = isthmus_link(link, $1::bigint::text, $2::text, $3::text, $4::text, $5::text,
    $6::text, $7::text, $8::bigint::text)
  RETURNING seq, link)
INSERT INTO events (seq, time, actor, origin, action, object, outcome, detail, of, link)
SELECT seq, $1::bigint, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::bigint, link FROM head
RETURNING seq;

-- write: put-config-ages
INSERT INTO config_ages (kind, namespace, name, file, first_seen)
SELECT value->>0, value->>1, value->>2, value->>3, (value->>4)::bigint FROM json_array_elements($1::json)
ON CONFLICT (kind, namespace, name, file) DO UPDATE SET first_seen = excluded.first_seen;

-- write: delete-config-ages
DELETE FROM config_ages WHERE (kind, namespace, name, file) IN
  (SELECT value->>0, value->>1, value->>2, value->>3 FROM json_array_elements($1::json));

-- Certificates that still stand and lead to a root, the longest-lived of each identity at each node.
-- read: certs-under
SELECT node, spiffe_id, max(not_after) FROM certs WHERE not_after > $1 AND root = $2
  AND NOT EXISTS (SELECT 1 FROM admins WHERE admins.serial = encode(certs.serial, 'hex') AND revoked IS NOT NULL)
GROUP BY node, spiffe_id ORDER BY node, spiffe_id;
