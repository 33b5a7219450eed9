-- write: add-admin (changes admins $2)
INSERT INTO admins (generation, name, serial, created, made_by, not_after) VALUES ($1, $2, $3, $4, $5, $6);

-- read: admin
SELECT generation, name, serial, created, made_by, not_after, revoked FROM admins WHERE generation = $1;

-- read: admins
SELECT generation, name, serial, created, made_by, not_after, revoked FROM admins ORDER BY name, created, generation;

-- Those that end later than a moment. Empty arguments select all.
-- write: revoke-admins (changes admins)
UPDATE admins SET revoked = $1 WHERE revoked IS NULL AND not_after > $1 AND ($2 = '' OR name = $2) AND ($3 = '' OR generation = $3);

-- write: prune-admins
DELETE FROM admins WHERE not_after < $1;
