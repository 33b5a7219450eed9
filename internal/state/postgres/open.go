package postgres

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	"isthmus.dev/isthmus/internal/state/relational"
)

//go:embed migrations/*.sql queries/*.sql
var files embed.FS

// oldestServer is the oldest supported version of PostgreSQL.
const oldestServer = 140000

// Open opens the state in a database and migrates its schema. It returns an error for a database that is damaged, was
// made by a newer version, or does not persist what it acknowledges.
func Open(ctx context.Context, cfg Config) (*relational.DB, error) {
	watchers := &relational.Watchers{}
	e, err := open(ctx, cfg, watchers)
	if err != nil {
		return nil, err
	}
	return relational.New(ctx, e, watchers)
}

func open(ctx context.Context, cfg Config, watchers *relational.Watchers) (*engine, error) {
	e := &engine{cfg: cfg, origin: rand.Text(), watchers: watchers}
	if err := e.open(ctx); err != nil {
		return nil, errors.Join(e.Explain("open", err), e.Close())
	}
	return e, nil
}

func (e *engine) open(ctx context.Context) error {
	conn, err := e.cfg.connection()
	if err != nil {
		return err
	}
	e.write, e.read = e.pool(conn, 1), e.pool(conn, 4)
	if err := inspect(ctx, e.read); err != nil {
		return err
	}
	if err := migrate(ctx, e.write); err != nil {
		return err
	}
	if err := e.Check(ctx); err != nil {
		return err
	}
	return e.listen(ctx, conn)
}

// pool returns a pool of at most n connections.
func (e *engine) pool(conn *pgx.ConnConfig, n int) *sql.DB {
	p := stdlib.OpenDB(*conn, stdlib.OptionBeforeConnect(e.cfg.authenticate), stdlib.OptionAfterConnect(pinDurability))
	p.SetMaxOpenConns(n)
	p.SetMaxIdleConns(n)
	return p
}

// pinDurability sets synchronous_commit for the session, which overrides later changes of the server's, database's or
// role's setting. It keeps the current setting unless that is "off", with which a crashing server loses acknowledged
// writes.
func pinDurability(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SELECT set_config('synchronous_commit', replace(current_setting('synchronous_commit'), "+
		"'off', 'on'), false)")
	return err
}

// inspect refuses a server that the schema cannot be used with.
func inspect(ctx context.Context, p *sql.DB) error {
	var version int
	var encoding string
	err := p.QueryRowContext(ctx,
		"SELECT current_setting('server_version_num')::int, current_setting('server_encoding')").Scan(&version,
		&encoding)
	switch {
	case err != nil:
		return err
	case version < oldestServer:
		return fmt.Errorf("it is PostgreSQL %d, and %d is the oldest that will do", version/10000, oldestServer/10000)
	case encoding != "UTF8":
		return fmt.Errorf("its encoding is %s: make it with ENCODING 'UTF8'", encoding)
	}
	return nil
}

// migrate migrates the schema, one control plane at a time.
func migrate(ctx context.Context, p *sql.DB) error {
	dir, err := fs.Sub(files, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	g, err := goose.NewProvider(database.DialectPostgres, p, dir, goose.WithDisableGlobalRegistry(true),
		goose.WithSessionLocker(locker))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	have, want, err := g.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if have > want {
		return fmt.Errorf("it has schema version %d, this program knows %d: run the newer isthmus that wrote it", have,
			want)
	}
	if _, err := g.Up(ctx); err != nil {
		return fmt.Errorf("migrate from schema version %d to %d: %w", have, want, err)
	}
	return nil
}

// sums returns each table, its key as text, and its checksum expression.
const sums = `SELECT c.relname, pg_get_expr(d.adbin, d.adrelid), (
    SELECT string_agg(format('%I::text', k.attname), '||'' ''||' ORDER BY k.attnum)
    FROM pg_index i JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = ANY (i.indkey)
    WHERE i.indrelid = c.oid AND i.indisprimary)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'sum' AND a.attgenerated = 's'
    JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
  WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'nodes'::regclass)
  ORDER BY c.relname`

// chained counts the events that are not linked to their predecessor, and whether the last one is missing.
const chained = `SELECT (
    SELECT count(*) FROM (
      SELECT seq, lag(seq) OVER w AS previous, link, isthmus_link(lag(link) OVER w, time::text, actor, origin, action, object,
        outcome, detail, of::text) AS want
      FROM events WINDOW w AS (ORDER BY seq)) e
    WHERE (previous IS NOT NULL OR seq = 1) AND (link IS DISTINCT FROM want OR previous <> seq - 1))
  + (SELECT count(*) FROM event_head h WHERE seq > 0 AND NOT EXISTS (
      SELECT 1 FROM events e WHERE e.seq = h.seq AND e.link = h.link))`

// Check verifies the checksum of every row and the chain of events.
func (e *engine) Check(ctx context.Context) error {
	t, err := e.read.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return err
	}
	defer t.Rollback()
	tables, err := summed(ctx, t)
	if err != nil {
		return err
	}
	for _, one := range tables {
		if err := e.checkTable(ctx, t, one); err != nil {
			return err
		}
	}
	var bad int
	if err := t.QueryRowContext(ctx, chained).Scan(&bad); err != nil {
		return err
	}
	if bad > 0 {
		return e.damaged(fmt.Sprintf("events are missing or not as they were written, at %d places", bad))
	}
	return nil
}

type table struct{ name, sum, key string }

func summed(ctx context.Context, t *sql.Tx) (all []table, err error) {
	rows, err := t.QueryContext(ctx, sums)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var one table
		if err := rows.Scan(&one.name, &one.sum, &one.key); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

func (e *engine) checkTable(ctx context.Context, t *sql.Tx, one table) error {
	rows, err := t.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM %s WHERE sum IS DISTINCT FROM %s LIMIT 4", one.key,
		one.name, one.sum))
	if err != nil {
		return err
	}
	defer rows.Close()
	var keys []string
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return err
		}
		keys = append(keys, key)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if len(keys) > 3 {
		keys[3] = "…"
	}
	if len(keys) > 0 {
		return e.damaged(fmt.Sprintf("rows of table %s are not as they were written: %s", one.name,
			strings.Join(keys, ", ")))
	}
	return nil
}
