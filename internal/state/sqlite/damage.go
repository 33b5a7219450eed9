package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"isthmus.dev/isthmus/internal/state"
)

// damaged describes the damage and the remedy.
func damaged(path, detail string) error {
	return fmt.Errorf("%w: %s: %s. It was left as it is. Restore it from a backup (with %s-wal, if the backup has one); "+
		"only without a backup move it away: then the mesh begins anew with a new root, and every node and peer must join again",
		state.ErrDamaged, path, detail, path)
}

func isDamage(err error) bool {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return false
	}
	primary := e.Code() & 0xff
	return primary == sqlite3.SQLITE_CORRUPT || primary == sqlite3.SQLITE_NOTADB
}

// inspect checks the file before SQLite opens it, for damage that SQLite would take for a new database.
func inspect(path string) (exists bool, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, inspectMissing(path)
	case err != nil:
		return false, err
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("it is not a regular file: name a file in state's path")
	case info.Size() == 0:
		return false, damaged(path, "the file is empty: it was cut off, or made by something else")
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return false, fmt.Errorf("others may read it: run chmod 600 %s: %w", path, err)
		}
	}
	return true, errors.Join(inspectHeader(path, info.Size()), inspectLog(path))
}

func inspectMissing(path string) error {
	for _, suffix := range []string{"-wal", "-journal"} {
		if info, err := os.Stat(path + suffix); err == nil && info.Size() > 0 {
			return damaged(path, "the file is missing while "+path+suffix+", which belongs to it, is there")
		}
	}
	return nil
}

// inspectHeader reads the 100-byte header (sqlite.org/fileformat2.html §1.3).
func inspectHeader(path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, 100)
	if _, err := io.ReadFull(f, head); err != nil {
		return damaged(path, fmt.Sprintf("the file has %d bytes, too few for a database: it was cut off", size))
	}
	if !bytes.Equal(head[:16], []byte("SQLite format 3\x00")) {
		return damaged(path,
			"the file is not a database: another file was put in its place, or its beginning was overwritten")
	}
	if id := binary.BigEndian.Uint32(head[68:]); id != applicationID {
		return damaged(path,
			fmt.Sprintf("the file does not bear Isthmus's mark (its application id is %#x): it is another program's database, or its beginning was overwritten", id))
	}
	return nil
}

// examine runs SQLite's integrity check, then verifies the checksums of the schema and of every row.
func examine(ctx context.Context, p *sql.DB, path string) error {
	var first string
	if err := p.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&first); err != nil {
		return err
	}
	if first != "ok" {
		return damaged(path, strings.TrimSpace(first))
	}
	have, err := schemaSum(ctx, p)
	if err != nil {
		return err
	}
	var want int64
	if err := p.QueryRowContext(ctx, "SELECT sum FROM schema_sum").Scan(&want); err != nil {
		return damaged(path, "its schema cannot be checked: "+err.Error())
	}
	if have != want && want != 0 { // 0: see migrate
		return damaged(path, "its schema is not as it was written")
	}
	if err := examineRows(ctx, p, path); err != nil {
		return err
	}
	return examineEvents(ctx, p, path)
}

func examineRows(ctx context.Context, p *sql.DB, path string) error {
	tables, err := strs(ctx, p,
		"SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%isthmus_sum(%' ORDER BY name")
	if err != nil {
		return err
	}
	for _, table := range tables {
		cols, err := strs(ctx, p, "SELECT name FROM pragma_table_xinfo(?) WHERE name <> 'sum' ORDER BY cid", table)
		if err != nil {
			return err
		}
		var bad int
		check := fmt.Sprintf("SELECT count(*) FROM %s WHERE sum IS NOT isthmus_sum(%s)", table,
			strings.Join(cols, ", "))
		if err := p.QueryRowContext(ctx, check).Scan(&bad); err != nil {
			return err
		}
		if bad > 0 {
			return damaged(path, fmt.Sprintf("%d rows of table %s are not as they were written", bad, table))
		}
	}
	return nil
}

func strs(ctx context.Context, p *sql.DB, q string, args ...any) ([]string, error) {
	rows, err := p.QueryContext(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, errors.Join(rows.Err(), rows.Close())
}

// chained is a SQL condition: every event is linked to its predecessor, and none is missing.
const chained = `SELECT
  (SELECT count(*) FROM (
    SELECT seq, lag(seq) OVER w AS before, link, isthmus_link(lag(link) OVER w, time, actor, origin, action, object, outcome, detail, of) AS want
    FROM events WINDOW w AS (ORDER BY seq))
  WHERE (before IS NOT NULL OR seq = 1) AND (link IS NOT want OR before <> seq - 1))
  + (SELECT count(*) FROM sqlite_sequence WHERE name = 'events' AND seq IS NOT (SELECT max(seq) FROM events))`

// examineEvents detects events that were removed or modified.
func examineEvents(ctx context.Context, p *sql.DB, path string) error {
	tables, err := strs(ctx, p, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = 'events'")
	if err != nil || len(tables) == 0 {
		return err
	}
	var bad int
	if err := p.QueryRowContext(ctx, chained).Scan(&bad); err != nil {
		return err
	}
	if bad > 0 {
		return damaged(path, fmt.Sprintf("events are missing or not as they were written, at %d places", bad))
	}
	return nil
}
