package federation

import (
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/peerrules"
)

// TestTheClockIsSetBack sets the clock of a mesh back by a day while its peer is out of reach. The peer's roots are
// never younger than now, and grow old as if nothing had been: after their age limit nothing passes any more.
func TestTheClockIsSetBack(t *testing.T) {
	cards, m, n := pair(t)
	join(t, cards, m)
	n.setCut(true)
	m.skip(-24 * time.Hour)
	m.redateFutureRoots(t.Context())
	state := m.snapshot().Peers["cards"]
	if state.BundleTime.IsZero() || state.BundleTime.After(m.now()) || m.now().Sub(state.BundleTime) > time.Minute {
		t.Errorf("at %s the roots are of %s", m.now(), state.BundleTime)
	}
	m.skip(peerrules.DefaultMaxBundleAge + time.Minute)
	if v := peerrules.All(m.snapshot(), "retail.example")["cards"]; v.Live || v.Reason != peerrules.Stale {
		t.Errorf("a day and a minute later: %+v", v)
	}
}
