-- +goose Up
-- What was done and by whom, in the order in which it was written down. Rows are added and never changed; those older than
-- the retention (400 days before the newest) may be removed. Each row's link is a SHA-256 over the row before and its own
-- content, so that a row taken out or changed in between is found when the file is opened.
CREATE TABLE events (
  seq     INTEGER PRIMARY KEY AUTOINCREMENT,
  time    INTEGER NOT NULL,
  actor   TEXT NOT NULL CHECK (length(actor) BETWEEN 1 AND 256),
  origin  TEXT NOT NULL CHECK (length(origin) <= 128),
  action  TEXT NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
  object  TEXT NOT NULL CHECK (length(object) <= 512),
  outcome TEXT NOT NULL CHECK (outcome IN ('begun', 'ok', 'failed', 'refused')),
  detail  TEXT NOT NULL CHECK (length(detail) <= 1024),
  of      INTEGER UNIQUE, -- the event that began what ends here
  link    BLOB NOT NULL CHECK (length(link) = 32),
  sum     INTEGER NOT NULL AS (isthmus_sum(seq, time, actor, origin, action, object, outcome, detail, of, link)) STORED
) STRICT;
CREATE INDEX events_time ON events (time);

-- +goose StatementBegin
CREATE TRIGGER events_stay_as_they_are BEFORE UPDATE ON events BEGIN
  SELECT raise(ABORT, 'an event is never changed');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER events_stay BEFORE DELETE ON events
WHEN old.time > (SELECT max(time) FROM events) - 400 * 86400 * 1000000 BEGIN
  SELECT raise(ABORT, 'an event is kept for 400 days');
END;
-- +goose StatementEnd

-- Refusals of those who may not do what they tried: equal ones folded into one row, so that a flood of them cannot fill the
-- disk nor hide anything in the table above.
DROP TABLE refusals;
CREATE TABLE refusals (
  actor    TEXT NOT NULL CHECK (length(actor) BETWEEN 1 AND 256),
  origin   TEXT NOT NULL CHECK (length(origin) <= 128),
  action   TEXT NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
  object   TEXT NOT NULL CHECK (length(object) <= 512),
  detail   TEXT NOT NULL CHECK (length(detail) <= 1024),
  first_at INTEGER NOT NULL,
  last_at  INTEGER NOT NULL,
  times    INTEGER NOT NULL,
  sum      INTEGER NOT NULL AS (isthmus_sum(actor, origin, action, object, detail, first_at, last_at, times)) STORED,
  PRIMARY KEY (actor, origin, action, object, detail)
) STRICT;
