// Package waittest is how tests wait: until a condition holds or, if there is no condition, for a time whose reason the
// function's name states. No test calls time.Sleep (checked by internal/layers).
package waittest

import (
	"testing"
	"testing/synctest"
	"time"
)

// Patience is how long a test waits for what must happen, far longer than it takes on a slow, busy machine.
const Patience = 30 * time.Second

// poll is the interval between checks.
const poll = 5 * time.Millisecond

// Until waits until ok returns true; what describes the condition. The test fails if that takes longer than Patience.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(poll) {
		if time.Since(begun) > Patience {
			t.Fatalf("not within %s: %s", Patience, what)
		}
	}
}

// Within waits until try returns nil, and returns how long that took. The test fails with the last error if it takes
// longer than most, which is Patience unless the time itself is under test.
func Within(t testing.TB, most time.Duration, what string, try func() error) time.Duration {
	t.Helper()
	for begun := time.Now(); ; time.Sleep(poll) {
		err := try()
		took := time.Since(begun)
		if err == nil {
			return took
		}
		if took > most {
			t.Fatalf("not within %s: %s: %v", most, what, err)
		}
	}
}

// Quiet waits for d, during which something must not happen or must keep working.
func Quiet(d time.Duration) { time.Sleep(d) }

// Pace waits between two steps of something that must be slow: a load, a slow client or server.
func Pace(d time.Duration) { time.Sleep(d) }

// Advance advances a synctest bubble's clock by d, and runs what becomes due. It panics outside a bubble.
func Advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
