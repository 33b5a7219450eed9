-- The last ones that the filter selects; what began is left out where it ended. Empty arguments select all.
-- read: events
SELECT seq, time, actor, origin, action, object, outcome, detail, time, 1 FROM events e
WHERE time >= $1 AND ($2 = '' OR replace(actor, $2, '') <> actor) AND ($3 = '' OR replace(action, $3, '') <> action)
  AND NOT EXISTS (SELECT 1 FROM events f WHERE f.of = e.seq)
ORDER BY seq DESC LIMIT $4;

-- read: refusals
SELECT 0, last_at, actor, origin, action, object, 'refused', detail, first_at, times FROM refusals
WHERE last_at >= $1 AND ($2 = '' OR replace(actor, $2, '') <> actor) AND ($3 = '' OR replace(action, $3, '') <> action)
ORDER BY last_at DESC, actor, origin, action, object, detail LIMIT $4;

-- write: fold-refusal
UPDATE refusals SET last_at = $1, times = times + $2 WHERE actor = $3 AND origin = $4 AND action = $5 AND object = $6 AND detail = $7;

-- write: add-refusal
INSERT INTO refusals (last_at, times, actor, origin, action, object, detail, first_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (actor, origin, action, object, detail)
DO UPDATE SET last_at = excluded.last_at, times = refusals.times + excluded.times;

-- How many there are of one actor at one address, of that actor, and of all actors whose name begins with the same word: what
-- follows a blank comes before '!'.
-- write: refusals-of
SELECT (SELECT count(*) FROM refusals WHERE actor = $1 AND origin = $2), (SELECT count(*) FROM refusals WHERE actor = $1),
  (SELECT count(*) FROM refusals WHERE actor = $3) + (SELECT count(*) FROM refusals WHERE actor >= $3 || ' ' AND actor < $3 || '!');

-- The last thousand stay however old they are: a clock that was set years ahead makes nobody forget them. What goes are the
-- first ones, older than 400 days before the newest, without a gap, which would look as if somebody had taken events out.
-- write: prune-events
DELETE FROM events WHERE seq <= (SELECT max(seq) FROM events) - 1000
  AND seq < (SELECT min(seq) FROM events WHERE time >= (SELECT max(time) FROM events) - 34560000000000);

-- write: prune-refusals
DELETE FROM refusals WHERE last_at < $1;
