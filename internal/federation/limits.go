package federation

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"isthmus.dev/isthmus/internal/rates"
)

const (
	slotsAtOnce = 64
	peersAtOnce = 8 // of these for one peer
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
	keys  *rates.Rates[string] // by peer or invitation, and by what is asked
	peers *shares
}

// shares are how many requests of each peer are being answered.
type shares struct {
	mu     sync.Mutex // guards byPeer
	byPeer map[string]int
}

// enter takes one of a peer's places; leave gives it back.
func (l limits) enter(peer string) (leave func(), ok bool) {
	l.peers.mu.Lock()
	defer l.peers.mu.Unlock()
	if l.peers.byPeer[peer] >= peersAtOnce {
		return nil, false
	}
	l.peers.byPeer[peer]++
	return func() {
		l.peers.mu.Lock()
		defer l.peers.mu.Unlock()
		if l.peers.byPeer[peer]--; l.peers.byPeer[peer] <= 0 {
			delete(l.peers.byPeer, peer)
		}
	}, true
}

func newLimits() limits {
	return limits{
		slots: make(chan struct{}, slotsAtOnce), keys: rates.New[string](maxRates),
		peers: &shares{byPeer: map[string]int{}},
	}
}

// allow counts one request of a peer or invitation, both of which must be known to exist.
func (l limits) allow(key string) bool { return l.allowAt(usualPace, key) }

func (l limits) allowAt(p pace, key string) bool {
	return l.keys.Allow(key, p.perSecond, p.burst, time.Now())
}
