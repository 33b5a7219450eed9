package federation

import (
	"time"

	"golang.org/x/time/rate"

	"isthmus.dev/isthmus/internal/rates"
)

const (
	slotsAtOnce = 64
	peersAtOnce = 8 // concurrent requests of one peer, per kind
	maxRates    = 1024
)

// pace is the rate and burst of one kind of request from a peer.
type pace struct {
	perSecond rate.Limit
	burst     int
}

var (
	usualPace = pace{10, 20}
	probePace = pace{1, 5}
)

// limits bounds the resources of this process that others can use.
type limits struct {
	slots chan struct{}
	keys  *rates.Rates[string] // by peer and kind of request
}

func newLimits() limits {
	return limits{slots: make(chan struct{}, slotsAtOnce), keys: rates.New[string](maxRates)}
}

// allow counts one refusal of an unknown caller.
func (l limits) allow(key string) bool { return l.allowAt(usualPace, key) }

func (l limits) allowAt(p pace, key string) bool {
	return l.keys.Allow(key, p.perSecond, p.burst, time.Now())
}
