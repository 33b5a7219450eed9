package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/relational"
)

// writerLock is the advisory lock for writing to this database: "ISTH".
const writerLock = 0x49535448

const (
	// keptChanges is how many changes are stored for processes that were disconnected. Every pruneEvery changes, older
	// ones are removed.
	keptChanges = 50_000
	pruneEvery  = 5_000
)

// answerTime limits a transaction or query. Nothing else detects a server that hangs or a network that drops packets:
// the kernel waits for a quarter of an hour.
const answerTime = 15 * time.Second

// engine is an open database.
type engine struct {
	cfg         Config
	origin      string // identifies this process's changes
	watchers    *relational.Watchers
	write, read *sql.DB
	pruned      int64 // the change after which changes were last pruned; used by the writer only

	stop      func()         // ends listening
	listening sync.WaitGroup // done when nothing listens any more
}

func (e *engine) Pools() (read, write *sql.DB) { return e.read, e.write }

func (e *engine) Statements() fs.FS {
	dir, _ := fs.Sub(files, "queries") // fails only for an invalid name
	return dir
}

// Begin starts a transaction and waits for the writer lock.
func (e *engine) Begin(ctx context.Context) (*sql.Tx, string, error) {
	// At other levels, the first statement, which waits for the lock, would fix the snapshot.
	t, err := e.write.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return nil, "", err
	}
	var void, id string
	err = t.QueryRowContext(ctx, "SELECT pg_advisory_xact_lock($1)::text, pg_current_xact_id()::text",
		writerLock).Scan(&void, &id)
	if err != nil {
		return nil, "", errors.Join(err, t.Rollback())
	}
	return t, id, nil
}

// Bounded gives the server answerTime.
func (e *engine) Bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, answerTime)
}

func (e *engine) Committed(ctx context.Context, id string) (bool, error) {
	var status string
	if err := e.read.QueryRowContext(ctx, "SELECT pg_xact_status($1::text::xid8)", id).Scan(&status); err != nil {
		return false, err
	}
	if status == "in progress" {
		return false, errors.New("the transaction has not ended")
	}
	return status == "committed", nil
}

// Announce stores changes for other processes and has the server notify them on commit.
func (e *engine) Announce(ctx context.Context, t *sql.Tx, changes []state.Change) error {
	var topics, keys []string
	seen := map[state.Change]bool{}
	for _, c := range changes {
		if !seen[c] {
			seen[c] = true
			topics, keys = append(topics, string(c.Topic)), append(keys, c.Key)
		}
	}
	var last int64
	err := t.QueryRowContext(ctx, `WITH new AS (
		INSERT INTO changes (origin, topic, key) SELECT $1, topic, key FROM unnest($2::text[], $3::text[]) AS c (topic, key)
		RETURNING seq)
		SELECT max(seq) FROM new, LATERAL (SELECT pg_notify('isthmus_changes', '')) AS told`, e.origin, topics, keys).Scan(&last)
	if err != nil || last < e.pruned+pruneEvery {
		return err
	}
	e.pruned = last
	_, err = t.ExecContext(ctx, "DELETE FROM changes WHERE seq <= $1", last-keptChanges)
	return err
}

// Judge follows the classes of SQLSTATE (PostgreSQL, appendix A).
func (e *engine) Judge(err error) relational.Fault {
	var p *pgconn.PgError
	if errors.As(err, &p) {
		switch class := p.Code[:2]; {
		case class == "08", class == "40", class == "57", p.Code == "25006", p.Code == "25P03", p.Code == "53300",
			p.Code == "55P03":
			return relational.Passing // connection, serialization, shutdown, standby, idle, too many, lock
		// data, constraint, too long, raised by a trigger
		case class == "22", class == "23", class == "54", p.Code == "P0001":
			return relational.Alone
		}
		return relational.Spoilt
	}
	if errors.Is(err, pgx.ErrTxCommitRollback) {
		return relational.Spoilt
	}
	var n net.Error
	var c *pgconn.ConnectError
	for _, lost := range []error{
		driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, pgconn.ErrConnClosed,
		sql.ErrConnDone, context.DeadlineExceeded,
	} {
		if errors.Is(err, lost) {
			return relational.Passing
		}
	}
	if errors.As(err, &n) || errors.As(err, &c) || pgconn.SafeToRetry(err) {
		return relational.Passing
	}
	return relational.Alone
}

func (e *engine) Taken(err error) bool {
	var p *pgconn.PgError
	return errors.As(err, &p) && p.Code == "23505"
}

func (e *engine) damaged(detail string) error {
	return fmt.Errorf("%w: %s: %s. Nothing was changed. Restore the database from a backup; only without one begin with an empty "+
		"database: then the mesh has a new root, and every node and peer must join again", state.ErrDamaged, e.Place(),
		detail)
}

func (e *engine) Explain(operation string, err error) error {
	var p *pgconn.PgError
	switch {
	case err == nil || errors.Is(err, state.ErrDamaged):
		return err
	case errors.As(err, &p) && strings.HasPrefix(p.Code, "XX"):
		return e.damaged(err.Error())
	case errors.As(err, &p) && p.Code == "53100":
		return fmt.Errorf("%s: nothing was changed, because the disk of the %s is full: make room there; %w", operation,
			e.Place(), err)
	}
	return fmt.Errorf("%s in %s: %w", operation, e.Place(), err)
}

func (e *engine) Place() string { return e.cfg.place() }

func (e *engine) Shared() bool { return true }

func (e *engine) Close() error {
	if e.stop != nil {
		e.stop()
		e.listening.Wait()
	}
	var errs []error
	for _, pool := range []*sql.DB{e.read, e.write} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(errs...)
}
