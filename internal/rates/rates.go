// Package rates bounds how often each of many may do something. It forgets whoever has rested, so that however many
// there were, what is remembered of them has a bound.
package rates

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// rest is how long a rate is kept that is not used: it is full again by then.
const rest = 10 * time.Minute

// Rates are one rate for each key. Use New.
type Rates[K comparable] struct {
	most int

	mu    sync.Mutex // guards byKey
	byKey map[K]*limiter
}

type limiter struct {
	*rate.Limiter
	used time.Time
}

// New remembers at most so many keys.
func New[K comparable](most int) *Rates[K] { return &Rates[K]{most: most, byKey: map[K]*limiter{}} }

// Allow counts one event of a key and says whether it is within the key's rate. It is not where there is no room for
// the key. Whoever uses a key says the same rate each time.
func (r *Rates[K]) Allow(key K, perSecond rate.Limit, burst int, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	one := r.byKey[key]
	if one == nil {
		if len(r.byKey) >= r.most {
			r.prune(now)
		}
		if len(r.byKey) >= r.most {
			return false
		}
		one = &limiter{Limiter: rate.NewLimiter(perSecond, burst)}
		r.byKey[key] = one
	}
	one.used = now
	return one.AllowN(now, 1)
}

func (r *Rates[K]) prune(now time.Time) {
	for key, one := range r.byKey {
		if now.Sub(one.used) > rest {
			delete(r.byKey, key)
		}
	}
}

// Clear forgets what was counted.
func (r *Rates[K]) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.byKey)
}
