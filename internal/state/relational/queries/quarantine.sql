-- read: quarantine
SELECT proxy, kind, namespace, name, content, reason, since FROM quarantine ORDER BY proxy, kind, namespace, name;

-- write: put-quarantine (changes quarantined)
INSERT INTO quarantine (proxy, kind, namespace, name, content, reason, since) VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (proxy, kind, namespace, name) DO UPDATE SET content = excluded.content, reason = excluded.reason, since = excluded.since;

-- write: delete-quarantine (changes quarantined)
DELETE FROM quarantine WHERE proxy = $1 AND kind = $2 AND namespace = $3 AND name = $4;
