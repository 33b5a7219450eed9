package relational

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// Acquire implements state.Store.
func (d *DB) Acquire(ctx context.Context, name, holder string, data []byte, ttl time.Duration) (state.Lease, error) {
	l := state.Lease{Name: name, Holder: holder, Data: data}
	err := d.inTx(ctx, "acquire-lease", func(ctx context.Context, t *tx) error {
		err := t.scan(ctx, "acquire-lease", []any{&l.Token}, name, holder, ttl.Microseconds(), orEmpty(data))
		if errors.Is(err, sql.ErrNoRows) {
			err = fmt.Errorf("lease %q is another's: %w", name, state.ErrExists)
		}
		return err
	})
	if err != nil {
		return state.Lease{}, err
	}
	return l, nil
}

// Release implements state.Store.
func (d *DB) Release(ctx context.Context, l state.Lease) error {
	_, err := d.exec(ctx, "release-lease", l.Name, l.Holder, int64(l.Token))
	return err
}

// Leases implements state.Store.
func (d *DB) Leases(ctx context.Context, prefix string) ([]state.Lease, error) {
	return list(ctx, d, "leases", func(s scanner) (l state.Lease, err error) {
		err = s.Scan(&l.Name, &l.Holder, &l.Token, &l.Data)
		return l, err
	}, prefix)
}

// Under implements state.Store.
func (d *DB) Under(l state.Lease) state.Store {
	under := *d
	under.lease = &l
	return &under
}

// Shared implements state.Store.
func (d *DB) Shared() bool { return d.engine.Shared() }

// holds refuses to write without the lease.
func (t *tx) holds(ctx context.Context, l state.Lease) error {
	var n int
	err := t.scan(ctx, "held-lease", []any{&n}, l.Name, l.Holder, int64(l.Token))
	if err == nil && n == 0 {
		err = fmt.Errorf("lease %q is lost: %w", l.Name, state.ErrSuperseded)
	}
	return err
}
