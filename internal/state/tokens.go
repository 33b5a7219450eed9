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
	ID      string
	Hash    [32]byte // SHA-256 of the secret
	Node    string
	Role    snapshot.Role
	Grant   grant.Grant // the node's, once it has joined
	Created time.Time
	Expires time.Time
	UsedAt  time.Time // zero: not yet
	UsedBy  string
}

// AddToken writes a new token; ErrExists when its ID is taken.
func (d *DB) AddToken(ctx context.Context, t Token) error {
	grants, err := encode(t.Grant)
	if err != nil {
		return err
	}
	n, err := d.exec(ctx, "add-token", t.ID, t.Hash[:], t.Node, string(t.Role), grants, stamp(t.Created), stamp(t.Expires))
	if err == nil && n == 0 {
		err = fmt.Errorf("add token %q: %w", t.ID, ErrExists)
	}
	return err
}

// UseToken marks a token as used and returns it. Of all who try, at any time, one succeeds. The others get ErrNotFound,
// ErrSecret, ErrUsed or ErrExpired, and the refusal is recorded.
func (d *DB) UseToken(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (Token, error) {
	t, err := one(ctx, d, "token", scanToken, id)
	u := use{what: "token", id: id, by: by, now: now, statement: "use-token"}
	err = d.useOnce(ctx, u, err, t.Hash, hash, func() (usedAt, expires time.Time, err error) {
		t, err = one(ctx, d, "token", scanToken, id)
		return t.UsedAt, t.Expires, err
	})
	if err != nil {
		return Token{}, err
	}
	t.UsedAt, t.UsedBy = now, by
	return t, nil
}

// Tokens reads all tokens, oldest first.
func (d *DB) Tokens(ctx context.Context) ([]Token, error) { return list(ctx, d, "tokens", scanToken) }

func scanToken(s scanner) (t Token, err error) {
	var hash []byte
	err = s.Scan(&t.ID, &hash, &t.Node, &t.Role, jsonOf{&t.Grant}, timeOf{&t.Created}, timeOf{&t.Expires}, timeOf{&t.UsedAt}, &t.UsedBy)
	copy(t.Hash[:], hash)
	return t, err
}
