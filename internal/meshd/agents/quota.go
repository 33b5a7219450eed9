package agents

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Limits on what one node may ask of the control plane, whose time and disk are shared. An agent requests each
// certificate when it starts, and again at half its lifetime. The burst allows for repeated restarts.
const (
	certsBurst   = 10 // for one identity
	certsAtOnce  = 8  // of one node
	certsPerLife = 8
	// certsEvery is how often one identity may get another certificate, whatever their lifetime.
	certsEvery = 30 * time.Second
	// A report replaces the previous one. Of reports that arrive faster than reportRate, only the latest counts.
	reportRate, reportBurst = 10, 40
	readRate, readBurst     = 50, 100
)

// quota is the quota of one node.
type quota struct {
	atOnce  chan struct{}
	reads   *rate.Limiter // of reports read from the wire
	reports *rate.Limiter // of reports that count
	warn    rate.Sometimes

	mu    sync.Mutex               // guards the fields below
	certs *rate.Limiter            // for all identities
	each  map[string]*rate.Limiter // by identity
}

// quotas are the quotas of all nodes, by name.
type quotas struct {
	mu sync.Mutex // guards of
	of map[string]*quota
}

func (r *quotas) node(name string) *quota {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[name] == nil {
		r.of[name] = &quota{
			atOnce: make(chan struct{}, certsAtOnce), reads: rate.NewLimiter(readRate, readBurst),
			reports: rate.NewLimiter(reportRate, reportBurst),
			warn:    rate.Sometimes{Interval: time.Minute}, each: map[string]*rate.Limiter{},
		}
	}
	return r.of[name]
}

// certificate counts a certificate with this lifetime, at a node that hosts this many workloads. It returns an error if
// that exceeds the quota.
func (r *quota) certificate(identity string, life time.Duration, hosted int, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	many := rate.Limit(hosted + 1) // and the node's own
	refill := rate.Limit(certsPerLife/life.Seconds() + 1/certsEvery.Seconds())
	r.certs = limited(r.certs, refill*many, certsBurst*(hosted+1), now)
	one := r.each[identity]
	if one == nil {
		r.tidy(hosted, now)
	}
	one = limited(one, refill, certsBurst, now)
	r.each[identity] = one
	if r.certs.TokensAt(now) < 1 || one.TokensAt(now) < 1 {
		return status.Errorf(codes.ResourceExhausted,
			"too many certificates were asked for, of %s or by this node: try again in %s", identity, certsEvery)
	}
	r.certs.AllowN(now, 1)
	one.AllowN(now, 1)
	return nil
}

// limited sets a limiter's limits. A new limiter starts full.
func limited(l *rate.Limiter, perSecond rate.Limit, burst int, now time.Time) *rate.Limiter {
	if l == nil {
		return rate.NewLimiter(perSecond, burst)
	}
	l.SetLimitAt(now, perSecond)
	l.SetBurstAt(now, burst)
	return l
}

// tidy forgets identities whose quota is unused.
func (r *quota) tidy(hosted int, now time.Time) {
	if len(r.each) <= 2*(hosted+1) {
		return
	}
	for id, l := range r.each {
		if l.TokensAt(now) >= certsBurst {
			delete(r.each, id)
		}
	}
}

// enter waits for one of the node's slots for signing.
func (r *quota) enter(ctx context.Context) (leave func(), err error) {
	select {
	case r.atOnce <- struct{}{}:
		return func() { <-r.atOnce }, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}
