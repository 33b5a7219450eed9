package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/relational"
)

//go:embed queries/*.sql
var statements embed.FS

// engine is an open file.
type engine struct {
	path  string
	lock  *os.File // held while the file is open
	write *sql.DB  // one connection: SQLite has one writer
	read  *sql.DB
}

func (e *engine) Pools() (read, write *sql.DB) { return e.read, e.write }

func (e *engine) Statements() fs.FS {
	dir, _ := fs.Sub(statements, "queries") // fails only for an invalid name
	return dir
}

// Begin starts a transaction. No connection can be lost, so it needs no id.
func (e *engine) Begin(ctx context.Context) (*sql.Tx, string, error) {
	t, err := e.write.BeginTx(ctx, nil)
	return t, "", err
}

// Bounded returns ctx: there is no server that could hang.
func (e *engine) Bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// Committed is never called, since no fault is Passing.
func (e *engine) Committed(context.Context, string) (bool, error) {
	return false, errors.ErrUnsupported
}

// Announce does nothing: all watchers are in this process.
func (e *engine) Announce(context.Context, *sql.Tx, []state.Change) error { return nil }

// Judge follows sqlite.org/lang_transaction.html §3: SQLite may roll back the transaction after any error except a
// violated constraint.
func (e *engine) Judge(err error) relational.Fault {
	var s *sqlite.Error
	if errors.Is(err, state.ErrDamaged) || errors.As(err, &s) && s.Code()&0xff != sqlite3.SQLITE_CONSTRAINT {
		return relational.Spoilt
	}
	return relational.Alone
}

func (e *engine) Taken(err error) bool {
	var s *sqlite.Error
	return errors.As(err, &s) && (s.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE ||
		s.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY)
}

func (e *engine) Explain(operation string, err error) error {
	if isDamage(err) {
		return damaged(e.path, err.Error())
	}
	var s *sqlite.Error
	switch {
	case errors.Is(err, state.ErrDamaged):
		return err
	case errors.As(err, &s) && s.Code()&0xff == sqlite3.SQLITE_FULL:
		return fmt.Errorf("%s: nothing was changed, because the disk that holds the state file %s is full: make room there; %w",
			operation, e.path, err)
	}
	return fmt.Errorf("%s in state file %s: %w", operation, e.path, err)
}

func (e *engine) Place() string { return e.path }

func (e *engine) Shared() bool { return false }

func (e *engine) Check(ctx context.Context) error { return examine(ctx, e.read, e.path) }

func (e *engine) Close() error {
	var errs []error
	for _, pool := range []*sql.DB{e.read, e.write} { // the writing pool last: it merges the log into the file
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close state file %s: %w", e.path, err)
	}
	return nil
}
