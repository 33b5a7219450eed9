-- read: config-ages
SELECT kind, namespace, name, file, first_seen FROM config_ages ORDER BY first_seen, kind, namespace, name, file;

-- write: put-config-ages
INSERT INTO config_ages (kind, namespace, name, file, first_seen)
SELECT value->>0, value->>1, value->>2, value->>3, value->>4 FROM json_each(?) WHERE true
ON CONFLICT (kind, namespace, name, file) DO UPDATE SET first_seen = excluded.first_seen;

-- write: delete-config-ages
DELETE FROM config_ages WHERE (kind, namespace, name, file) IN (SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(?));
