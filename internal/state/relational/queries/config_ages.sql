-- read: config-ages
SELECT kind, namespace, name, file, first_seen FROM config_ages ORDER BY first_seen, kind, namespace, name, file;

-- write: youngest-config-age
SELECT max(first_seen) FROM config_ages;
