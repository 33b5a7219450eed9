-- read: quarantine
SELECT proxy, kind, namespace, name, content, reason, since FROM quarantine ORDER BY proxy, kind, namespace, name;

-- write: put-quarantine
INSERT INTO quarantine (proxy, kind, namespace, name, content, reason, since) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (proxy, kind, namespace, name) DO UPDATE SET content = excluded.content, reason = excluded.reason, since = excluded.since;

-- write: delete-quarantine
DELETE FROM quarantine WHERE proxy = ? AND kind = ? AND namespace = ? AND name = ?;
