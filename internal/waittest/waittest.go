// Package waittest is how tests wait: until something is true, and, where there is nothing to wait for, for a while
// whose reason the function's name says. No test calls time.Sleep (internal/layers holds them to it).
package waittest

import (
	"testing"
	"testing/synctest"
	"time"
)

// Patience is how long a test waits for what must happen: far longer than it takes on a slow and busy machine.
const Patience = 30 * time.Second

// poll is how long Until and Within let pass between two looks.
const poll = 5 * time.Millisecond

// Until waits until ok, which what describes. The test ends if that takes longer than Patience.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(poll) {
		if time.Since(begun) > Patience {
			t.Fatalf("not within %s: %s", Patience, what)
		}
	}
}

// Within waits until try has no error and returns how long that took. The test ends with the last error if it takes
// longer than most, which is Patience unless the time itself is what is tested.
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

// Quiet lets d pass, in which something must not happen, or must keep on working.
func Quiet(d time.Duration) { time.Sleep(d) }

// Pace lets d pass between two steps of something that is to be slow: a load, a client that dribbles, a server that
// takes its time.
func Pace(d time.Duration) { time.Sleep(d) }

// Advance lets d of a synctest bubble's time pass, and all that is due then happen. It panics outside of a bubble.
func Advance(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
