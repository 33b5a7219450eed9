package agents

import (
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

// One address may be refused refusalBurst tokens and then refusalRate a second: each costs a write to the disk.
const (
	refusalRate  = 2
	refusalBurst = 200
	maxRefusers  = 10_000
)

// refusals hold back addresses from which token after token is refused.
type refusals struct {
	mu   sync.Mutex // guards from
	from map[netip.Addr]*rate.Limiter
}

// enough says that an address has been refused too often lately.
func (r *refusals) enough(a netip.Addr) bool {
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
			clear(r.from) // so many addresses are an attack that no address stands for
		}
		l = rate.NewLimiter(refusalRate, refusalBurst)
		r.from[a] = l
	}
	l.Allow()
}
