-- +goose Up
-- Every table has a column "sum": a checksum of all its other columns in their order, kept by the database itself and
-- compared whenever the state is opened, so that a flipped bit inside a row is found and its row named. Times are
-- microseconds since 1970, NULL for never. Text is ordered by its bytes.

-- JSON tells two rows apart whatever their texts hold.
CREATE FUNCTION isthmus_sum(VARIADIC fields text[]) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN substr(sha256(convert_to(array_to_json(fields)::text, 'UTF8')), 1, 8);

-- The link of an event is made of the link of the event before and of its own content.
CREATE FUNCTION isthmus_link(before bytea, VARIADIC fields text[]) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sha256(coalesce(before, '') || convert_to(array_to_json(fields)::text, 'UTF8'));

CREATE TABLE blobs (
  name    TEXT COLLATE "C" PRIMARY KEY,
  cert    BYTEA NOT NULL,
  key     BYTEA NOT NULL, -- encrypted
  created BIGINT NOT NULL,
  sum     BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    name, encode(cert, 'hex'), encode(key, 'hex'), created::text)) STORED
);

-- Join tokens, with who made each and when it was cancelled.
CREATE TABLE tokens (
  id         TEXT COLLATE "C" PRIMARY KEY,
  hash       BYTEA NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the secret
  node       TEXT COLLATE "C" NOT NULL,
  role       TEXT COLLATE "C" NOT NULL CHECK (role IN ('node', 'gateway')),
  grants     TEXT COLLATE "C" NOT NULL, -- grant.Grant, JSON
  created    BIGINT NOT NULL,
  made_by    TEXT COLLATE "C" NOT NULL,
  expires    BIGINT NOT NULL,
  cancelled  BIGINT,
  used_at    BIGINT,
  used_by    TEXT COLLATE "C" NOT NULL DEFAULT '',
  sum        BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    id, encode(hash, 'hex'), node, role, grants, created::text, made_by, expires::text, cancelled::text,
    used_at::text, used_by)) STORED
);

CREATE TABLE invites (
  id      TEXT COLLATE "C" PRIMARY KEY,
  hash    BYTEA NOT NULL CHECK (length(hash) = 32), -- SHA-256 of the secret
  peer    TEXT COLLATE "C" NOT NULL,
  created BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  used_at BIGINT,
  used_by TEXT COLLATE "C" NOT NULL DEFAULT '',
  sum     BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    id, encode(hash, 'hex'), peer, created::text, expires::text, used_at::text, used_by)) STORED
);

-- Refusals of those who may not do what they tried: equal ones folded into one row, so that a flood of them cannot
-- fill the
-- disk nor hide anything among the events.
CREATE TABLE refusals (
  actor    TEXT COLLATE "C" NOT NULL CHECK (length(actor) BETWEEN 1 AND 256),
  origin   TEXT COLLATE "C" NOT NULL CHECK (length(origin) <= 128),
  action   TEXT COLLATE "C" NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
  object   TEXT COLLATE "C" NOT NULL CHECK (length(object) <= 512),
  detail   TEXT COLLATE "C" NOT NULL CHECK (length(detail) <= 1024),
  first_at BIGINT NOT NULL,
  last_at  BIGINT NOT NULL,
  times    BIGINT NOT NULL,
  sum      BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    actor, origin, action, object, detail, first_at::text, last_at::text, times::text)) STORED,
  PRIMARY KEY (actor, origin, action, object, detail)
);

-- Each joining gives a node a new generation: the ID of the token that it joined with. Its certificates carry it, and
-- only
-- those of the generation that stands here are believed.
CREATE TABLE nodes (
  name       TEXT COLLATE "C" PRIMARY KEY,
  role       TEXT COLLATE "C" NOT NULL CHECK (role IN ('node', 'gateway')),
  generation TEXT COLLATE "C" NOT NULL,
  grants     TEXT COLLATE "C" NOT NULL, -- grant.Grant, JSON
  gateway    TEXT COLLATE "C", -- snapshot.GatewayInfo, JSON
  reached    TEXT COLLATE "C", -- the control plane's address by which a gateway's agent reached it
  builtin    TEXT COLLATE "C" NOT NULL DEFAULT '', -- version of the built-in parts of Envoy's configuration that its agent has
  attested   BIGINT NOT NULL,
  last_seen  BIGINT,
  revoked    BIGINT,
  conversations BIGINT NOT NULL DEFAULT 0, -- that have begun; each is numbered
  conversation  BIGINT NOT NULL DEFAULT 0, -- in which it spoke last
  sum        BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    name, role, generation, grants, gateway, reached, builtin, attested::text, last_seen::text, revoked::text,
    conversations::text, conversation::text)) STORED
);
CREATE INDEX nodes_generation ON nodes (generation);

CREATE TABLE workloads (
  node      TEXT COLLATE "C" NOT NULL REFERENCES nodes (name) ON DELETE CASCADE,
  namespace TEXT COLLATE "C" NOT NULL,
  name      TEXT COLLATE "C" NOT NULL,
  workload  TEXT COLLATE "C" NOT NULL, -- snapshot.Workload, JSON
  sum       BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(node, namespace, name, workload)) STORED,
  PRIMARY KEY (node, namespace, name)
);
CREATE UNIQUE INDEX workloads_name ON workloads (namespace, name); -- a workload's name is one node's: the one that had it first

-- Whose an address is. Workloads of one node may share it.
CREATE TABLE workload_addresses (
  address TEXT COLLATE "C" PRIMARY KEY,
  node    TEXT COLLATE "C" NOT NULL REFERENCES nodes (name) ON DELETE CASCADE,
  sum     BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(address, node)) STORED
);
CREATE INDEX workload_addresses_node ON workload_addresses (node);

-- The conversations that agents have with control planes.
CREATE TABLE agents (
  node         TEXT COLLATE "C" PRIMARY KEY REFERENCES nodes (name) ON DELETE CASCADE,
  conversation BIGINT NOT NULL,
  holder       TEXT COLLATE "C" NOT NULL, -- the control plane
  report       BYTEA NOT NULL,
  sum     BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(node, conversation::text, holder, encode(report, 'hex'))) STORED
);

-- What only one control plane may do, and which one that is. A lease ends by the database's clock.
CREATE TABLE leases (
  name    TEXT COLLATE "C" PRIMARY KEY,
  holder  TEXT COLLATE "C" NOT NULL,
  token   BIGINT NOT NULL,
  expires BIGINT NOT NULL,
  data    BYTEA NOT NULL,
  sum     BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(name, holder, token::text, expires::text, encode(data, 'hex'))) STORED
);

-- An address stays with its host after the host is gone, until another one needs it; a namespace is bounded.
CREATE TABLE vips (
  host      TEXT COLLATE "C" PRIMARY KEY,
  namespace TEXT COLLATE "C" NOT NULL,
  address   TEXT COLLATE "C" NOT NULL UNIQUE,
  gone      BIGINT, -- since when nobody writes the host
  sum       BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(host, namespace, address, gone::text)) STORED
);

-- When a peering was made by token is its age. What orders catalogues stands in them.
CREATE TABLE peers (
  name            TEXT COLLATE "C" PRIMARY KEY,
  object          TEXT COLLATE "C", -- MeshPeer made by token, JSON; NULL when its object is a file
  made            BIGINT, -- when it was made by token
  roots           BYTEA, -- PEM
  bundle_sequence BIGINT NOT NULL DEFAULT 0,
  bundle_time     BIGINT,
  suspended       BIGINT NOT NULL DEFAULT 0 CHECK (suspended IN (0, 1)),
  revoked         BIGINT,
  catalogue       TEXT COLLATE "C", -- snapshot.Catalogue, JSON
  catalogue_number TEXT COLLATE "C" NOT NULL DEFAULT '0', -- its sequence, which may have 64 bits
  readiness        TEXT COLLATE "C", -- snapshot.Readiness, JSON
  readiness_number TEXT COLLATE "C" NOT NULL DEFAULT '0',
  sum             BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    name, object, made::text, encode(roots, 'hex'), bundle_sequence::text, bundle_time::text, suspended::text,
    revoked::text, catalogue, catalogue_number, readiness, readiness_number)) STORED
);

CREATE TABLE bootstraps (
  id      TEXT COLLATE "C" PRIMARY KEY,
  address TEXT COLLATE "C" NOT NULL,
  expires BIGINT NOT NULL,
  sum     BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(id, address, expires::text)) STORED
);

CREATE TABLE sequences (
  name  TEXT COLLATE "C" PRIMARY KEY,
  value BIGINT NOT NULL,
  of    TEXT COLLATE "C" NOT NULL, -- what it stands for; empty: nothing that lasts
  sum   BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(name, value::text, of)) STORED
);

-- Which root a certificate leads to: SHA-256 of the root.
CREATE TABLE certs (
  fingerprint BYTEA PRIMARY KEY, -- SHA-256 of the DER
  serial      BYTEA NOT NULL,
  spiffe_id   TEXT COLLATE "C" NOT NULL,
  node        TEXT COLLATE "C" NOT NULL,
  not_before  BIGINT NOT NULL,
  not_after   BIGINT NOT NULL,
  root        BYTEA NOT NULL,
  sum         BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    encode(fingerprint, 'hex'), encode(serial, 'hex'), spiffe_id, node, not_before::text, not_after::text,
    encode(root, 'hex'))) STORED
);
CREATE INDEX certs_not_after ON certs (not_after);

-- The rotation of the root that is under way, or the last one.
CREATE TABLE rotation (
  one      BIGINT PRIMARY KEY CHECK (one = 1),
  step     TEXT COLLATE "C" NOT NULL,
  old_root BYTEA NOT NULL, -- SHA-256
  new_root BYTEA NOT NULL, -- SHA-256
  signing  BYTEA NOT NULL, -- the root that signs, SHA-256
  began    BIGINT NOT NULL,
  since    BIGINT NOT NULL, -- of the step
  passed   TEXT COLLATE "C" NOT NULL, -- JSON list: whom an administrator's --force left behind
  sum      BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    one::text, step, encode(old_root, 'hex'), encode(new_root, 'hex'), encode(signing, 'hex'), began::text, since::text, passed)) STORED
);

-- Administrators' certificates. One that is not here is not believed.
CREATE TABLE admins (
  generation TEXT COLLATE "C" PRIMARY KEY,
  name       TEXT COLLATE "C" NOT NULL,
  serial     TEXT COLLATE "C" NOT NULL, -- hex
  created    BIGINT NOT NULL,
  made_by    TEXT COLLATE "C" NOT NULL,
  not_after  BIGINT NOT NULL,
  revoked    BIGINT,
  sum        BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    generation, name, serial, created::text, made_by, not_after::text, revoked::text)) STORED
);

-- What was done and by whom, in the order in which it was written down. Rows are added and never changed; those older
-- than
-- the retention (400 days before the newest) may be removed. Each row's link is a SHA-256 over the row before and its
-- own
-- content, so that a row taken out or changed in between is found when the file is opened.
CREATE TABLE events (
  seq     BIGINT PRIMARY KEY,
  time    BIGINT NOT NULL,
  actor   TEXT COLLATE "C" NOT NULL CHECK (length(actor) BETWEEN 1 AND 256),
  origin  TEXT COLLATE "C" NOT NULL CHECK (length(origin) <= 128),
  action  TEXT COLLATE "C" NOT NULL CHECK (length(action) BETWEEN 1 AND 64),
  object  TEXT COLLATE "C" NOT NULL CHECK (length(object) <= 512),
  outcome TEXT COLLATE "C" NOT NULL CHECK (outcome IN ('begun', 'ok', 'failed', 'refused')),
  detail  TEXT COLLATE "C" NOT NULL CHECK (length(detail) <= 1024),
  of      BIGINT UNIQUE, -- the event that began what ends here
  link    BYTEA NOT NULL CHECK (length(link) = 32),
  sum     BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    seq::text, time::text, actor, origin, action, object, outcome, detail, of::text, encode(link, 'hex'))) STORED
);
CREATE INDEX events_time ON events (time);

-- The last event, in a row that whoever adds one changes: so there is one chain, and its end cannot be taken away.
CREATE TABLE event_head (
  one  BIGINT PRIMARY KEY CHECK (one = 1),
  seq  BIGINT NOT NULL,
  link BYTEA NOT NULL,
  sum  BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(one::text, seq::text, encode(link, 'hex'))) STORED
);
INSERT INTO event_head (one, seq, link) VALUES (1, 0, '');

-- +goose StatementBegin
CREATE FUNCTION events_stay() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP <> 'DELETE' THEN
    RAISE EXCEPTION 'an event is never changed';
  END IF;
  IF old.time > (SELECT max(time) FROM events) - 34560000000000 OR old.seq > (SELECT max(seq) FROM events) - 1000 THEN
    RAISE EXCEPTION 'an event is kept for 400 days, and so are the last thousand';
  END IF;
  RETURN old;
END $$;
-- +goose StatementEnd
CREATE TRIGGER events_stay BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION events_stay();
CREATE TRIGGER events_stay_all BEFORE TRUNCATE ON events EXECUTE FUNCTION events_stay();

-- When each object of the configuration was first seen in a file, so that who was first stays first across restarts.
CREATE TABLE config_ages (
  kind       TEXT COLLATE "C" NOT NULL,
  namespace  TEXT COLLATE "C" NOT NULL,
  name       TEXT COLLATE "C" NOT NULL,
  file       TEXT COLLATE "C" NOT NULL, -- inside the configuration folder, percent-encoded
  first_seen BIGINT NOT NULL,
  sum        BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(kind, namespace, name, file, first_seen::text)) STORED,
  PRIMARY KEY (kind, namespace, name, file)
);

-- Objects that a proxy could not live with: there they are closed until their content changes.
CREATE TABLE quarantine (
  proxy     TEXT COLLATE "C" NOT NULL,
  kind      TEXT COLLATE "C" NOT NULL,
  namespace TEXT COLLATE "C" NOT NULL,
  name      TEXT COLLATE "C" NOT NULL,
  content   TEXT COLLATE "C" NOT NULL, -- SHA-256 of what the object says, hex
  reason    TEXT COLLATE "C" NOT NULL,
  since     BIGINT NOT NULL,
  sum       BYTEA NOT NULL GENERATED ALWAYS AS (isthmus_sum(
    proxy, kind, namespace, name, content, reason, since::text)) STORED,
  PRIMARY KEY (proxy, kind, namespace, name)
);

-- What was written of late, for those who watch. Rows are in the order of their transactions, which follow one another.
CREATE TABLE changes (
  seq    BIGINT PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
  origin TEXT COLLATE "C" NOT NULL, -- the process that wrote it
  topic  TEXT COLLATE "C" NOT NULL,
  key    TEXT COLLATE "C" NOT NULL
);
