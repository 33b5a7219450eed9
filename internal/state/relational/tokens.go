package relational

import (
	"context"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// AddToken implements state.Store.
func (d *DB) AddToken(ctx context.Context, t state.Token) error {
	grants, err := encode(t.Grant)
	if err != nil {
		return err
	}
	n, err := d.exec(ctx, "add-token", t.ID, t.Hash[:], t.Node, string(t.Role), grants, timeValue(t.Created), t.MadeBy,
		timeValue(t.Expires))
	if err == nil && n == 0 {
		err = fmt.Errorf("add token %q: %w", t.ID, state.ErrExists)
	}
	return err
}

// UseToken implements state.Store.
func (d *DB) UseToken(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (state.Token, error) {
	var t state.Token
	u := use{what: "token", id: id, by: by, now: now, statement: "use-token"}
	err := d.useOnce(ctx, u, hash, func() (s secret, err error) {
		t, err = one(ctx, d, "token", notCancelled, id)
		return secret{t.Hash, t.UsedAt, t.Expires}, err
	})
	if err != nil {
		return state.Token{}, err
	}
	t.UsedAt, t.UsedBy = now, by
	return t, nil
}

// CancelToken implements state.Store.
func (d *DB) CancelToken(ctx context.Context, id string, now time.Time) error {
	n, err := d.exec(ctx, "cancel-token", timeValue(now), id)
	if err != nil || n == 1 {
		return err
	}
	t, err := one(ctx, d, "token", scanToken, id)
	if err == nil && t.Cancelled.IsZero() {
		err = fmt.Errorf("cancel token %q: %w", id, state.ErrUsed)
	}
	return err
}

// CancelTokensMadeBy implements state.Store.
func (d *DB) CancelTokensMadeBy(ctx context.Context, maker string, now time.Time) (int64, error) {
	return d.exec(ctx, "cancel-tokens-made-by", timeValue(now), maker)
}

// Tokens implements state.Store.
func (d *DB) Tokens(ctx context.Context) ([]state.Token, error) {
	return list(ctx, d, "tokens", scanToken)
}

// errCancelled is ErrNotFound to the caller, but recorded as such.
var errCancelled = fmt.Errorf("cancelled: %w", state.ErrNotFound)

// notCancelled scans a token. A cancelled one counts as missing.
func notCancelled(s scanner) (state.Token, error) {
	t, err := scanToken(s)
	if err == nil && !t.Cancelled.IsZero() {
		err = errCancelled
	}
	return t, err
}

func scanToken(s scanner) (t state.Token, err error) {
	var hash []byte
	err = s.Scan(&t.ID, &hash, &t.Node, &t.Role, jsonOf{&t.Grant}, timeOf{&t.Created}, &t.MadeBy, timeOf{&t.Expires},
		timeOf{&t.Cancelled}, timeOf{&t.UsedAt}, &t.UsedBy)
	copy(t.Hash[:], hash)
	return t, err
}
