package door

import (
	"container/list"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/rates"
)

// limits counts the calls of each caller, by method.
type limits struct {
	rates *rates.Rates[limitKey]

	mu     sync.Mutex               // guards the fields below
	now    map[limitKey]int         // calls in progress
	silent *list.List               // *call of limited duration whose message has not arrived, oldest first
	long   map[string]chan struct{} // by caller: slots for long messages being read
}

type limitKey struct{ method, caller string }

// A caller may send maxLong messages longer than longMessage at a time.
const (
	longMessage = 64 << 10
	maxLong     = 4
)

// maxRates bounds the number of rate limiters, one per caller and method.
const maxRates = 10_000

func newLimits() *limits {
	return &limits{
		rates: rates.New[limitKey](maxRates), now: map[limitKey]int{}, silent: list.New(),
		long: map[string]chan struct{}{},
	}
}

// take admits a call or returns an error: Busy if there is no room. To make room, it ends the oldest call that has not
// sent its message for a while.
func (l *limits) take(c *call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, key, all := time.Now(), limitKey{c.share(), c.key()}, limitKey{method: c.share()}
	any := func(o *call) bool { return o.share() == c.share() }
	own := func(o *call) bool { return any(o) && o.key() == key.caller }
	if c.AtOnce > 0 && l.now[key] >= c.AtOnce && !l.endSilent(own, now) {
		return Busy{status.Errorf(codes.ResourceExhausted, "more than %d calls at once: try again", c.AtOnce)}
	}
	if c.InAll > 0 && l.now[all] >= c.InAll && !l.endSilent(any, now) {
		return Busy{status.Error(codes.ResourceExhausted, "too many calls of this kind at once: try again")}
	}
	if c.Rate > 0 && !l.rates.Allow(key, c.Rate, c.Burst, now) {
		return status.Errorf(codes.ResourceExhausted, "more than %v calls a second: try again later", float64(c.Rate))
	}
	l.now[key]++
	l.now[all]++
	if c.end != nil {
		c.began, c.place = now, l.silent.PushBack(c)
	}
	return nil
}

// Busy is a temporary refusal for lack of room.
type Busy struct{ error }

// Unwrap returns the gRPC status error.
func (b Busy) Unwrap() error { return b.error }

// endSilent ends the oldest of these calls that has sent nothing for a while. The caller holds mu.
func (l *limits) endSilent(is func(*call) bool, now time.Time) bool {
	for e := l.silent.Front(); e != nil; e = e.Next() {
		c := e.Value.(*call)
		if now.Sub(c.began) < handshakeGrace {
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

// heard must be called when a call's message has arrived.
func (l *limits) heard(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.place != nil {
		l.silent.Remove(c.place)
		c.place = nil
	}
}

// longSlots returns the slots for a caller's long messages. The map does not grow without bound, because only callers
// with certificates can send long messages.
func (l *limits) longSlots(c Caller) chan struct{} {
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

// forget removes a call from the counts. The caller holds mu.
func (l *limits) forget(c *call) {
	c.left = true
	if c.place != nil {
		l.silent.Remove(c.place)
		c.place = nil
	}
	for _, key := range []limitKey{{c.share(), c.key()}, {method: c.share()}} {
		if l.now[key]--; l.now[key] <= 0 {
			delete(l.now, key)
		}
	}
}
