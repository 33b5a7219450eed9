package door

import (
	"fmt"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/rates"
)

// limits count the calls of each caller, by method.
type limits struct {
	rates *rates.Rates[limitKey]

	mu   sync.Mutex               // guards all below
	now  map[limitKey]int         // under way
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
	return &limits{rates: rates.New[limitKey](maxRates), now: map[limitKey]int{}, long: map[string]chan struct{}{}}
}

// take counts a call in, or says why not.
func (l *limits) take(c *call) (why string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := limitKey{c.name, c.caller.key()}
	if c.AtOnce > 0 && l.now[key] >= c.AtOnce {
		return fmt.Sprintf("more than %d calls at once: try again", c.AtOnce)
	}
	all := limitKey{method: c.name}
	if c.InAll > 0 && l.now[all] >= c.InAll {
		return "too many calls of this kind at once: try again"
	}
	if c.Rate > 0 && !l.rates.Allow(key, c.Rate, c.Burst, time.Now()) {
		return fmt.Sprintf("more than %v calls a second: try again later", float64(c.Rate))
	}
	l.now[key]++
	l.now[all]++
	return ""
}

// places are those for a caller's long messages. Only callers with certificates can send any, so that there is one for each of these.
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
	for _, key := range []limitKey{{c.name, c.caller.key()}, {method: c.name}} {
		if l.now[key]--; l.now[key] <= 0 {
			delete(l.now, key)
		}
	}
}
