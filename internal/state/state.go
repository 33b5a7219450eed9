package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// Sentinels on which callers branch.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	ErrUsed     = errors.New("used already")
	ErrExpired  = errors.New("expired")
	ErrSecret   = errors.New("wrong secret")
	ErrRevoked  = errors.New("revoked")
	ErrSequence = errors.New("sequence goes back")
	ErrDamaged  = errors.New("state file damaged")
)

// DB is one open state file.
type DB struct {
	path   string
	lock   *os.File // held while the file is open
	write  *sql.DB  // one connection: SQLite has one writer
	read   *sql.DB
	stmts  map[string]*sql.Stmt // by name in queries/, each on the pool it needs
	writer *writer
}

// Path is where the file is.
func (d *DB) Path() string { return d.path }

// Close ends all use of the file.
func (d *DB) Close() error {
	d.writer.stop()
	var errs []error
	for _, s := range d.stmts {
		errs = append(errs, s.Close())
	}
	for _, pool := range []*sql.DB{d.read, d.write} { // the writer last: it folds the log into the file
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	if d.lock != nil {
		errs = append(errs, d.lock.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close state file %s: %w", d.path, err)
	}
	return nil
}

// Check looks at all of the file, as opening it does: its structure, its schema and the checksum of every row.
// ErrDamaged says what is wrong.
func (d *DB) Check(ctx context.Context) error {
	return d.fail("check", examine(ctx, d.read, d.path))
}

// exec runs one writing statement by its name in queries/ and returns how many rows it changed, once that is durable.
func (d *DB) exec(ctx context.Context, name string, args ...any) (n int64, err error) {
	err = d.ask(ctx, deed{name: name, whole: true, do: func(ctx context.Context, t tx) error {
		n, err = t.exec(ctx, name, args...)
		return err
	}})
	return n, err
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// list runs one reading statement by its name in queries/.
func list[T any](ctx context.Context, d *DB, name string, scan func(scanner) (T, error), args ...any) ([]T, error) {
	rows, err := d.stmts[name].QueryContext(ctx, args...)
	if err != nil {
		return nil, d.fail(name, err)
	}
	defer rows.Close()
	var all []T
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, d.fail(name, err)
		}
		all = append(all, one)
	}
	return all, d.fail(name, rows.Err())
}

// one is list for a statement that finds at most one row; ErrNotFound when it finds none.
func one[T any](ctx context.Context, d *DB, name string, scan func(scanner) (T, error), args ...any) (T, error) {
	v, err := scan(d.stmts[name].QueryRowContext(ctx, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return v, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	return v, d.fail(name, err)
}

// tx is one transaction.
type tx struct {
	d  *DB
	tx *sql.Tx
}

// inTx runs f in a transaction: all of it happens, and is durable, or nothing.
func (d *DB) inTx(ctx context.Context, name string, f func(context.Context, tx) error) error {
	return d.ask(ctx, deed{name: name, do: f})
}

func (t tx) exec(ctx context.Context, name string, args ...any) (int64, error) {
	r, err := t.tx.StmtContext(ctx, t.d.stmts[name]).ExecContext(ctx, args...)
	if err != nil {
		return 0, t.d.fail(name, err)
	}
	n, err := r.RowsAffected()
	return n, t.d.fail(name, err)
}

// fail names the deed and the file in err; nil stays nil.
func (d *DB) fail(deed string, err error) error {
	if err == nil {
		return nil
	}
	if isDamage(err) {
		return damaged(d.path, err.Error())
	}
	if e := (*sqlite.Error)(nil); errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL {
		return fmt.Errorf("%s: nothing was changed, because the disk that holds the state file %s is full: make room there; %w", deed, d.path, err)
	}
	return fmt.Errorf("%s in state file %s: %w", deed, d.path, err)
}
