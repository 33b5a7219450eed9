package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"

	_ "modernc.org/sqlite" // the driver named "sqlite"

	"isthmus.dev/isthmus/internal/durable"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/relational"
)

// applicationID marks the file as ours in its header: "ISTH".
const applicationID = 0x49535448

// Open opens the state file, or creates it if there is none, and migrates its schema. If the file is damaged,
// truncated, empty, foreign or in use, it returns an error and leaves the file unchanged.
func Open(ctx context.Context, path string) (*relational.DB, error) {
	e, err := Engine(ctx, path)
	if err != nil {
		return nil, err
	}
	return relational.New(ctx, e, &relational.Watchers{})
}

// Engine returns the engine that Open uses.
func Engine(ctx context.Context, path string) (relational.Engine, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open state file: %w", err)
	}
	e := &engine{path: path}
	if err := e.open(ctx); err != nil {
		return nil, errors.Join(e.describe(err), e.Close())
	}
	return e, nil
}

func (e *engine) open(ctx context.Context) error {
	var err error
	if e.lock, err = lockFile(e.path); err != nil {
		return err
	}
	if err := registerFunctions(); err != nil {
		return err
	}
	exists, err := inspect(e.path)
	if err != nil {
		return err
	}
	if !exists {
		if err := create(ctx, e.path); err != nil {
			return err
		}
	}
	if e.write,
		err = pool(e.path, 1,
		"_txlock=immediate&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(1)&_pragma=secure_delete(1)"); err != nil {
		return err
	}
	if err := examine(ctx, e.write, e.path); err != nil {
		return err
	}
	if err := migrate(ctx, e.write); err != nil {
		return err
	}
	e.read, err = pool(e.path, 4, "_pragma=query_only(1)")
	return err
}

// describe adds the file's name to an error of opening it.
func (e *engine) describe(err error) error {
	if isDamage(err) && !errors.Is(err, state.ErrDamaged) {
		return damaged(e.path, err.Error())
	}
	if errors.Is(err, state.ErrDamaged) {
		return err
	}
	return fmt.Errorf("open state file %s: %w", e.path, err)
}

// pool opens the file for at most n connections.
func pool(path string, n int, settings string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Path: path, OmitHost: true, RawQuery: "_busy_timeout=10000&" + settings}
	p, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	p.SetMaxOpenConns(n)
	p.SetMaxIdleConns(n)
	return p, nil
}

// create builds a new file under a temporary name and renames it, so that a crash leaves nothing that looks like a
// damaged file.
func create(ctx context.Context, path string) error {
	fresh := path + ".new"
	for _, f := range []string{fresh, fresh + "-journal"} {
		if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove the rest of an earlier start: %w", err)
		}
	}
	f, err := os.OpenFile(fresh, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := fill(ctx, fresh); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		return err
	}
	return durable.SyncFolder(filepath.Dir(path))
}

func fill(ctx context.Context, path string) (err error) {
	p, err := pool(path, 1, fmt.Sprintf("_txlock=immediate&_pragma=application_id(%d)", applicationID))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	return migrate(ctx, p)
}

// lockFile locks the file against a second control plane. The kernel releases the lock when the process ends.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("its folder %s does not exist: make it, owned by the user that runs isthmus: %w",
			filepath.Dir(path), err)
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil,
			errors.Join(fmt.Errorf("another isthmus process uses it: stop that one first, or give this one a file of its own: %w", err), f.Close())
	}
	return f, nil
}
