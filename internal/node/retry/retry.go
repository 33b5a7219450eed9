// Package retry says how long to wait before the next attempt: exponential, bounded, with jitter.
package retry

import (
	"context"
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
