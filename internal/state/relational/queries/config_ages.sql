-- read: config-ages
SELECT kind, namespace, name, file, first_seen FROM config_ages ORDER BY first_seen, kind, namespace, name, file;
