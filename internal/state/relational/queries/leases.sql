-- write: prune-leases
DELETE FROM leases WHERE expires < $1;

-- write: release-lease
UPDATE leases SET expires = 0 WHERE name = $1 AND holder = $2 AND token = $3;
