package relational

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// use is an attempt to use something that can be used once.
type use struct {
	what, id, by string
	now          time.Time
	statement    string // marks it as used if it may be
}

// secret is the stored form of something that can be used once.
type secret struct {
	hash            [32]byte
	usedAt, expires time.Time
}

// useOnce decides an attempt by a caller that shows a hash. look reads what is stored, and reads it again to find the
// reason of a refusal.
func (d *DB) useOnce(ctx context.Context, u use, hash [32]byte, look func() (secret, error)) error {
	kept, err := look()
	switch {
	case errors.Is(err, errCancelled):
		return d.refuse(ctx, u, "cancelled", state.ErrNotFound)
	case errors.Is(err, state.ErrNotFound):
		u.id = "" // values invented by strangers are counted, not stored
		return d.refuse(ctx, u, "unknown", state.ErrNotFound)
	case err != nil:
		return err
	case subtle.ConstantTimeCompare(kept.hash[:], hash[:]) != 1:
		return d.refuse(ctx, u, "wrong secret", state.ErrSecret)
	}
	n, err := d.exec(ctx, u.statement, timeValue(u.now), u.by, u.id, timeValue(u.now))
	if err != nil || n == 1 {
		return err
	}
	kept, err = look()
	switch {
	case err != nil:
		return err
	case !kept.usedAt.IsZero() && !kept.usedAt.Equal(kept.expires): // an expired one has both times equal
		return d.refuse(ctx, u, "used already",
			fmt.Errorf("%w at %s", state.ErrUsed, kept.usedAt.Format(time.RFC3339)))
	default:
		err := d.EndExpired(ctx, u.now)
		return errors.Join(d.refuse(ctx, u, "expired",
			fmt.Errorf("%w at %s", state.ErrExpired, kept.expires.Format(time.RFC3339))), err)
	}
}

// EndExpired implements state.Store.
func (d *DB) EndExpired(ctx context.Context, now time.Time) error {
	for _, name := range []string{"end-tokens", "end-invites"} {
		if _, err := d.exec(ctx, name, timeValue(now)); err != nil {
			return err
		}
	}
	return nil
}

// refuse records a refusal and returns its error.
func (d *DB) refuse(ctx context.Context, u use, reason string, cause error) error {
	e := state.Event{
		Time: u.now, Actor: state.Stranger, From: u.by, Action: u.action(), Object: u.id, Outcome: state.Refused,
		Detail: reason,
	}
	return errors.Join(fmt.Errorf("use %s %q: %w", u.what, u.id, cause), d.Record(ctx, e))
}

// action returns the event's action for the attempt.
func (u use) action() string {
	if u.what == "token" {
		return "node join"
	}
	return "peer redeem"
}
