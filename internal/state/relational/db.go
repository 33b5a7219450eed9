package relational

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// DB is a state.Store in an Engine.
type DB struct {
	engine   Engine
	stmts    map[string]*statement
	writer   *writer
	watchers *Watchers
	lease    *state.Lease // writes require this lease; nil: none
}

var _ state.Store = (*DB)(nil)

// statement is prepared on the pool that it needs.
type statement struct {
	*sql.Stmt
	query
}

// New returns a store on an engine, which Close closes. Watchers are notified of its writes.
func New(ctx context.Context, engine Engine, watchers *Watchers) (*DB, error) {
	d := &DB{engine: engine, stmts: map[string]*statement{}, watchers: watchers}
	if err := d.prepare(ctx); err != nil {
		return nil, errors.Join(d.fail("open", err), d.Close())
	}
	d.startWriter()
	return d, nil
}

// Close implements state.Store.
func (d *DB) Close() error {
	d.writer.stop()
	var errs []error
	for _, s := range d.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, d.engine.Close())...)
}

// Place implements state.Store.
func (d *DB) Place() string { return d.engine.Place() }

// Check implements state.Store.
func (d *DB) Check(ctx context.Context) error { return d.fail("check", d.engine.Check(ctx)) }

// Watch implements state.Store.
func (d *DB) Watch(ctx context.Context) <-chan []state.Change { return d.watchers.Watch(ctx) }

// exec runs a writing statement, named as in queries/, and returns the number of changed rows when that is durable.
func (d *DB) exec(ctx context.Context, name string, args ...any) (n int64, err error) {
	err = d.inTx(ctx, name, func(ctx context.Context, t *tx) error {
		n, err = t.exec(ctx, name, args...)
		return err
	})
	return n, err
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// list runs a reading statement, named as in queries/.
func list[T any](ctx context.Context, d *DB, name string, scan func(scanner) (T, error), args ...any) ([]T, error) {
	return reading(ctx, d, name, func(ctx context.Context) (all []T, err error) {
		rows, err := d.stmts[name].QueryContext(ctx, args...)
		return scanned(rows, err, scan)
	})
}

// listIn is list within a transaction.
func listIn[T any](ctx context.Context, t *tx, name string, scan func(scanner) (T, error), args ...any) ([]T, error) {
	rows, err := t.tx.StmtContext(ctx, t.d.stmts[name].Stmt).QueryContext(ctx, args...)
	all, err := scanned(rows, err, scan)
	return all, t.d.fail(name, err)
}

func scanned[T any](rows *sql.Rows, err error, scan func(scanner) (T, error)) (all []T, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		one, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// one is list for a statement that returns at most one row. It returns ErrNotFound if there is none.
func one[T any](ctx context.Context, d *DB, name string, scan func(scanner) (T, error), args ...any) (T, error) {
	return reading(ctx, d, name, func(ctx context.Context) (T, error) {
		v, err := scan(d.stmts[name].QueryRowContext(ctx, args...))
		if errors.Is(err, sql.ErrNoRows) {
			err = state.ErrNotFound
		}
		return v, err
	})
}

// reading reads and retries for a while if the connection is lost.
func reading[T any](ctx context.Context, d *DB, name string, read func(context.Context) (T, error)) (T, error) {
	for until := time.Now().Add(readPatience); ; time.Sleep(retryPause) {
		bounded, cancel := d.engine.Bounded(ctx)
		v, err := read(bounded)
		cancel()
		switch {
		case errors.Is(err, state.ErrNotFound):
			return v, fmt.Errorf("%s: %w", name, err)
		case err == nil || d.engine.Judge(err) != Passing || ctx.Err() != nil || time.Now().After(until):
			return v, d.fail(name, err)
		}
	}
}

// inTx runs f in a transaction. f may be run more than once.
func (d *DB) inTx(ctx context.Context, name string, f func(context.Context, *tx) error) error {
	if l := d.lease; l != nil {
		without := f
		f = func(ctx context.Context, t *tx) error {
			if err := t.holds(ctx, *l); err != nil {
				return err
			}
			return without(ctx, t)
		}
	}
	return d.ask(ctx, &write{name: name, do: f})
}

// tx is a writing transaction.
type tx struct {
	d       *DB
	tx      *sql.Tx
	changes []state.Change // so far
}

func (t *tx) exec(ctx context.Context, name string, args ...any) (int64, error) {
	s := t.d.stmts[name]
	r, err := t.tx.StmtContext(ctx, s.Stmt).ExecContext(ctx, args...)
	if err != nil {
		return 0, t.d.fail(name, err)
	}
	n, err := r.RowsAffected()
	if n > 0 {
		t.note(s.query, args)
	}
	return n, t.d.fail(name, err)
}

// scan runs a statement that returns one row.
func (t *tx) scan(ctx context.Context, name string, into []any, args ...any) error {
	s := t.d.stmts[name]
	err := t.tx.StmtContext(ctx, s.Stmt).QueryRowContext(ctx, args...).Scan(into...)
	if err == nil {
		t.note(s.query, args)
	}
	return t.d.fail(name, err)
}

// note records what a statement changed, for watchers.
func (t *tx) note(q query, args []any) {
	if q.changes == "" {
		return
	}
	change := state.Change{Topic: q.changes, Here: true}
	if q.key > 0 {
		change.Key, _ = args[q.key-1].(string)
	}
	t.changes = append(t.changes, change)
}

// fail adds the operation and the database to err. nil stays nil.
func (d *DB) fail(operation string, err error) error {
	if err == nil {
		return nil
	}
	if d.engine.Taken(err) {
		err = fmt.Errorf("%w: %w", state.ErrExists, err)
	}
	return d.engine.Explain(operation, err)
}
