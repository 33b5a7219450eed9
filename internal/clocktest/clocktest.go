// Package clocktest is a clock for tests that can be set while time passes, as by an administrator or time server: the
// wall clock jumps, the monotonic clock does not.
package clocktest

import (
	"sync"
	"testing"
	"time"
	"unsafe"
)

// Clock returns the machine's time until it is set.
type Clock struct {
	t     testing.TB
	start time.Time
	mu    sync.Mutex // guards by
	by    time.Duration
}

// New returns a clock that is not set yet.
func New(t testing.TB) *Clock { return &Clock{t: t, start: time.Now()} }

// Step moves the wall clock.
func (c *Clock) Step(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by += by
}

// Now returns what time.Now would return if the machine's clock had been set: differences between its times are elapsed
// time, dates follow the wall clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	passed := time.Since(c.start)
	calendar := c.start.Round(0).Add(passed + c.by)
	now := withPassed(calendar, passed)
	if now.Sub(withPassed(c.start, 0)) != passed || !now.Round(0).Equal(calendar) {
		c.t.Errorf("a clock set by %s shows %s after %s", c.by, now, passed)
	}
	return now
}

// first is the epoch of times with a monotonic reading (time/time.go).
var first = time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// withPassed gives a time a monotonic reading. Only the runtime makes such times, so this writes the representation
// directly; Now checks the result.
func withPassed(t time.Time, passed time.Duration) time.Time {
	parts := (*struct {
		wall uint64
		ext  int64
	})(unsafe.Pointer(&t))
	seconds, nanoseconds := t.Unix(), t.Nanosecond()
	parts.wall, parts.ext = 1<<63|uint64(seconds-first)<<30|uint64(nanoseconds), int64(passed)+1
	return t
}
