package door

import (
	"container/list"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/rates"
)

// limits count the calls of each caller, by method.
type limits struct {
	rates *rates.Rates[limitKey]

	mu   sync.Mutex               // guards all below
	now  map[limitKey]int         // under way
	mute *list.List               // of *call with a bounded life whose message has not come yet, the oldest first
	long map[string]chan struct{} // by caller: a place for each long message that is being read
}

type limitKey struct{ method, caller string }

// A caller may have maxLong messages that are longer than longMessage read at a time.
const (
	longMessage = 64 << 10
	maxLong     = 4
)

// maxRates is how many callers, by method, are counted at a time.
const maxRates = 10_000

func newLimits() *limits {
	return &limits{
		rates: rates.New[limitKey](maxRates), now: map[limitKey]int{}, mute: list.New(),
		long: map[string]chan struct{}{},
	}
}

// take counts a call in, or says why not: Busy for want of room. Where there is no room, the oldest call gives way that
// had time enough to say what it wants and did not.
func (l *limits) take(c *call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, key, all := time.Now(), limitKey{c.share(), c.key()}, limitKey{method: c.share()}
	any := func(o *call) bool { return o.share() == c.share() }
	own := func(o *call) bool { return any(o) && o.key() == key.caller }
	if c.AtOnce > 0 && l.now[key] >= c.AtOnce && !l.giveWay(own, now) {
		return Busy{status.Errorf(codes.ResourceExhausted, "more than %d calls at once: try again", c.AtOnce)}
	}
	if c.InAll > 0 && l.now[all] >= c.InAll && !l.giveWay(any, now) {
		return Busy{status.Error(codes.ResourceExhausted, "too many calls of this kind at once: try again")}
	}
	if c.Rate > 0 && !l.rates.Allow(key, c.Rate, c.Burst, now) {
		return status.Errorf(codes.ResourceExhausted, "more than %v calls a second: try again later", float64(c.Rate))
	}
	l.now[key]++
	l.now[all]++
	if c.end != nil {
		c.began, c.place = now, l.mute.PushBack(c)
	}
	return nil
}

// Busy refuses a call for want of room: the same may be let in a moment later.
type Busy struct{ error }

// Unwrap returns the gRPC status.
func (b Busy) Unwrap() error { return b.error }

// giveWay ends the oldest of these calls that has said nothing for a while. The caller holds mu.
func (l *limits) giveWay(is func(*call) bool, now time.Time) bool {
	for e := l.mute.Front(); e != nil; e = e.Next() {
		c := e.Value.(*call)
		if now.Sub(c.began) < grace {
			return false
		}
		if is(c) {
			l.forget(c)
			c.end()
			return true
		}
	}
	return false
}

// heard is to be called when a call's message has come.
func (l *limits) heard(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.place != nil {
		l.mute.Remove(c.place)
		c.place = nil
	}
}

// places returns those for a caller's long messages. Only callers with certificates can send any, so that there is one
// for each of these.
func (l *limits) places(c Caller) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := c.key()
	if l.long[key] == nil {
		l.long[key] = make(chan struct{}, maxLong)
	}
	return l.long[key]
}

func (l *limits) leave(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.left {
		l.forget(c)
	}
}

// forget counts a call out. The caller holds mu.
func (l *limits) forget(c *call) {
	c.left = true
	if c.place != nil {
		l.mute.Remove(c.place)
		c.place = nil
	}
	for _, key := range []limitKey{{c.share(), c.key()}, {method: c.share()}} {
		if l.now[key]--; l.now[key] <= 0 {
			delete(l.now, key)
		}
	}
}
