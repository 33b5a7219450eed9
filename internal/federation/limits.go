package federation

import (
	"time"

	"golang.org/x/time/rate"

	"isthmus.dev/isthmus/internal/rates"
)

const (
	slotsAtOnce = 64
	peersAtOnce = 8 // requests of one peer, of each sort
	maxRates    = 1024
)

// pace is how many requests of one kind a peer may send, and how many at once after a pause.
type pace struct {
	perSecond rate.Limit
	burst     int
}

var (
	usualPace = pace{10, 20}
	probePace = pace{1, 5}
)

// limits bound how much of this process others can use.
type limits struct {
	slots chan struct{}
	keys  *rates.Rates[string] // by peer, and by what is asked
}

func newLimits() limits {
	return limits{slots: make(chan struct{}, slotsAtOnce), keys: rates.New[string](maxRates)}
}

// allow counts one refusal of strangers.
func (l limits) allow(key string) bool { return l.allowAt(usualPace, key) }

func (l limits) allowAt(p pace, key string) bool {
	return l.keys.Allow(key, p.perSecond, p.burst, time.Now())
}
