// Package retry repeats actions: with growing pauses after failures, until they succeed, or periodically.
package retry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Backoff counts failed attempts. The zero value is not usable: set Min and Max.
type Backoff struct {
	Min, Max time.Duration
	attempt  int
}

// Next returns the wait before the next attempt: between a half and the whole of Min·2ⁿ, at most Max.
func (b *Backoff) Next() time.Duration {
	d := b.Max
	if b.attempt < 30 && b.Min<<b.attempt < b.Max {
		d = b.Min << b.attempt
	}
	b.attempt++
	return d/2 + rand.N(d/2+1)
}

// Reset must be called after a success.
func (b *Backoff) Reset() { b.attempt = 0 }

// Sleep waits for d. It returns ctx's error if ctx is done first.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Every calls a function now and then once per period, until ctx is done. Calls never overlap.
func Every(ctx context.Context, period time.Duration, do func(context.Context)) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for ctx.Err() == nil {
		do(ctx)
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// Until calls try with pauses until it succeeds, for at most limit. It returns the last error; ctx's error counts only
// if there was no other. A Permanent error ends it immediately.
func Until(ctx context.Context, limit, pause time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if errors.As(err, new(Permanent)) {
			return err
		}
		if last == nil || !errors.Is(err, context.DeadlineExceeded) {
			last = err
		}
		if Sleep(ctx, pause) != nil {
			return fmt.Errorf("after %s: %w", limit.Round(time.Second), last)
		}
	}
}

// Permanent is an error that retrying cannot cure.
type Permanent struct{ Err error }

// Error implements error.
func (p Permanent) Error() string { return p.Err.Error() }

// Unwrap returns Err.
func (p Permanent) Unwrap() error { return p.Err }
