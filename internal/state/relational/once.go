package relational

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// use is one attempt at something that can be used once.
type use struct {
	what, id, by string
	now          time.Time
	statement    string // that marks it as used, if it may be
}

// useOnce decides one attempt. found is how looking it up went; again reads it anew to say why it was refused.
func (d *DB) useOnce(
	ctx context.Context, u use, found error, want, have [32]byte, again func() (usedAt, expires time.Time, err error),
) error {
	if errors.Is(found, errCancelled) {
		return d.refuse(ctx, u, "cancelled", state.ErrNotFound)
	}
	if errors.Is(found, state.ErrNotFound) {
		u.id = "" // what strangers invent is counted, not kept
		return d.refuse(ctx, u, "unknown", state.ErrNotFound)
	}
	if found != nil {
		return found
	}
	if subtle.ConstantTimeCompare(want[:], have[:]) != 1 {
		return d.refuse(ctx, u, "wrong secret", state.ErrSecret)
	}
	n, err := d.exec(ctx, u.statement, stamp(u.now), u.by, u.id, stamp(u.now))
	if err != nil || n == 1 {
		return err
	}
	usedAt, expires, err := again()
	switch {
	case err != nil:
		return err
	case !usedAt.IsZero() && !usedAt.Equal(expires): // of one that ended both are the same
		return d.refuse(ctx, u, "used already", fmt.Errorf("%w at %s", state.ErrUsed, usedAt.Format(time.RFC3339)))
	default:
		err := d.EndExpired(ctx, u.now)
		return errors.Join(d.refuse(ctx, u, "expired",
			fmt.Errorf("%w at %s", state.ErrExpired, expires.Format(time.RFC3339))), err)
	}
}

// EndExpired closes tokens and invitations whose time is over for good, whatever the clock says later.
func (d *DB) EndExpired(ctx context.Context, now time.Time) error {
	for _, name := range []string{"end-tokens", "end-invites"} {
		if _, err := d.exec(ctx, name, stamp(now)); err != nil {
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

// action is what the attempt is called among the events.
func (u use) action() string {
	if u.what == "token" {
		return "node join"
	}
	return "peer redeem"
}
