package state

import (
	"context"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Token is a join token as it is kept: its secret only as a hash.
type Token struct {
	ID        string
	Hash      [32]byte // SHA-256 of the secret
	Node      string
	Role      snapshot.Role
	Grant     grant.Grant // the node's, once it has joined
	Created   time.Time
	MadeBy    string
	Expires   time.Time
	Cancelled time.Time // zero: not
	UsedAt    time.Time // zero: not yet
	UsedBy    string
}

// AddToken writes a new token; ErrExists when its ID is taken.
func (d *DB) AddToken(ctx context.Context, t Token) error {
	grants, err := encode(t.Grant)
	if err != nil {
		return err
	}
	n, err := d.exec(ctx, "add-token", t.ID, t.Hash[:], t.Node, string(t.Role), grants, stamp(t.Created), t.MadeBy,
		stamp(t.Expires))
	if err == nil && n == 0 {
		err = fmt.Errorf("add token %q: %w", t.ID, ErrExists)
	}
	return err
}

// UseToken marks a token as used and returns it. Of all who try, at any time, one succeeds. The others get ErrNotFound,
// ErrSecret, ErrUsed or ErrExpired, and the refusal is recorded.
func (d *DB) UseToken(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (Token, error) {
	t, err := one(ctx, d, "token", notCancelled, id)
	u := use{what: "token", id: id, by: by, now: now, statement: "use-token"}
	err = d.useOnce(ctx, u, err, t.Hash, hash, func() (usedAt, expires time.Time, err error) {
		t, err = one(ctx, d, "token", notCancelled, id)
		return t.UsedAt, t.Expires, err
	})
	if err != nil {
		return Token{}, err
	}
	t.UsedAt, t.UsedBy = now, by
	return t, nil
}

// CancelToken ends a token that was not used yet. ErrNotFound when there is none, ErrUsed when it was used.
func (d *DB) CancelToken(ctx context.Context, id string, now time.Time) error {
	n, err := d.exec(ctx, "cancel-token", stamp(now), id)
	if err != nil || n == 1 {
		return err
	}
	t, err := one(ctx, d, "token", scanToken, id)
	if err == nil && t.Cancelled.IsZero() {
		err = fmt.Errorf("cancel token %q: %w", id, ErrUsed)
	}
	return err
}

// CancelTokensMadeBy ends the tokens of one maker that were not used yet, and says how many. None is no error.
func (d *DB) CancelTokensMadeBy(ctx context.Context, maker string, now time.Time) (int64, error) {
	return d.exec(ctx, "cancel-tokens-made-by", stamp(now), maker)
}

// Tokens reads all tokens, oldest first.
func (d *DB) Tokens(ctx context.Context) ([]Token, error) { return list(ctx, d, "tokens", scanToken) }

// errCancelled is an ErrNotFound to whoever asks, and something else on record.
var errCancelled = fmt.Errorf("cancelled: %w", ErrNotFound)

// notCancelled scans a token; one that was cancelled is none.
func notCancelled(s scanner) (Token, error) {
	t, err := scanToken(s)
	if err == nil && !t.Cancelled.IsZero() {
		err = errCancelled
	}
	return t, err
}

func scanToken(s scanner) (t Token, err error) {
	var hash []byte
	err = s.Scan(&t.ID, &hash, &t.Node, &t.Role, jsonOf{&t.Grant}, timeOf{&t.Created}, &t.MadeBy, timeOf{&t.Expires},
		timeOf{&t.Cancelled}, timeOf{&t.UsedAt}, &t.UsedBy)
	copy(t.Hash[:], hash)
	return t, err
}
