// Package rates limits the rate of events per key. It forgets idle keys, so that its memory is bounded.
package rates

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// rest is how long an unused rate is kept. By then its bucket is full again.
const rest = 10 * time.Minute

// Rates holds one rate limiter per key. Use New.
type Rates[K comparable] struct {
	most int

	mu    sync.Mutex // guards byKey
	byKey map[K]*limiter
}

type limiter struct {
	*rate.Limiter
	used time.Time
}

// New returns Rates with at most this many keys.
func New[K comparable](most int) *Rates[K] { return &Rates[K]{most: most, byKey: map[K]*limiter{}} }

// Allow counts one event of a key and reports whether it is within the key's rate. It returns false if there is no room
// for the key. A key must always be used with the same rate.
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

// Clear resets all counts.
func (r *Rates[K]) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.byKey)
}
