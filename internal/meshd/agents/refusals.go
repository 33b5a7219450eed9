package agents

import (
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

// One address may cause refusalBurst refused tokens, and then refusalRate per second, since each costs a write to the
// disk.
const (
	refusalRate  = 2
	refusalBurst = 200
	maxRefusers  = 10_000
)

// refusals limits addresses that send invalid tokens repeatedly.
type refusals struct {
	mu   sync.Mutex // guards from
	from map[netip.Addr]*rate.Limiter
}

// exceeded reports whether an address has recently been refused too often.
func (r *refusals) exceeded(a netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.from[a]
	return l != nil && l.Tokens() < 1
}

func (r *refusals) count(a netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.from[a]
	if l == nil {
		if len(r.from) >= maxRefusers {
			clear(r.from) // an attack from so many addresses cannot be limited by address
		}
		l = rate.NewLimiter(refusalRate, refusalBurst)
		r.from[a] = l
	}
	l.Allow()
}
