package door

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// limits count the calls of each caller, by method.
type limits struct {
	mu    sync.Mutex // guards all below
	rates map[limitKey]*paced
	now   map[limitKey]int         // under way
	long  map[string]chan struct{} // by caller: a place for each long message that is being read
}

type limitKey struct{ method, caller string }

type paced struct {
	*rate.Limiter
	used time.Time
}

// A caller may have maxLong messages that are longer than longMessage read at a time.
const (
	longMessage = 64 << 10
	maxLong     = 4
)

// Rates that were not used for a while are full again, and need not be kept.
const (
	maxRates  = 10_000
	rateSleep = 10 * time.Minute
)

func newLimits() *limits {
	return &limits{rates: map[limitKey]*paced{}, now: map[limitKey]int{}, long: map[string]chan struct{}{}}
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
	if c.Rate > 0 && !l.allow(key, c.Rate, c.Burst, time.Now()) {
		return fmt.Sprintf("more than %v calls a second: try again later", float64(c.Rate))
	}
	l.now[key]++
	l.now[all]++
	return ""
}

func (l *limits) allow(key limitKey, per rate.Limit, burst int, now time.Time) bool {
	one := l.rates[key]
	if one == nil {
		if len(l.rates) >= maxRates {
			l.prune(now)
		}
		if len(l.rates) >= maxRates {
			return false
		}
		one = &paced{Limiter: rate.NewLimiter(per, burst)}
		l.rates[key] = one
	}
	one.used = now
	return one.AllowN(now, 1)
}

func (l *limits) prune(now time.Time) {
	for k, r := range l.rates {
		if now.Sub(r.used) > rateSleep {
			delete(l.rates, k)
		}
	}
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
