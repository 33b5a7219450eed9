// Package retry does things again: after a wait that grows with each failure, until they succeed, or every so often.
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

// Reset after a success.
func (b *Backoff) Reset() { b.attempt = 0 }

// Sleep waits for d; the error is the context's when that ends first.
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

// Every does something now and then once in each period, until ctx ends. What takes longer is done less often.
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

// Until tries again and again until try succeeds, with a pause between attempts, for no longer than limit. Its last
// error is returned; one of ctx's end counts only where there was no other. A Permanent error ends it at once.
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

// Permanent is an error that no waiting will mend.
type Permanent struct{ Err error }

// Error returns that of Err.
func (p Permanent) Error() string { return p.Err.Error() }

// Unwrap returns Err.
func (p Permanent) Unwrap() error { return p.Err }
