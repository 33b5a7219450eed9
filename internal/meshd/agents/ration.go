package agents

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What one node may ask of the control plane, whose time and disk are everybody's. An agent asks for each certificate
// once when it starts and again at half its life; an agent that is started again and again has a reserve.
const (
	certsBurst   = 10 // of one identity
	certsAtOnce  = 8  // of one node
	certsPerLife = 8
	// certsEvery is how often another certificate of one identity may be asked for, however long they live.
	certsEvery = 30 * time.Second
	// A report replaces the one before: of those that come faster than reportRate only the newest is taken in.
	reportRate, reportBurst = 10, 40
	readRate, readBurst     = 50, 100
)

// ration is one node's.
type ration struct {
	atOnce  chan struct{}
	reads   *rate.Limiter // of reports, from the wire
	reports *rate.Limiter // taken in
	warn    rate.Sometimes

	mu    sync.Mutex               // guards all below
	certs *rate.Limiter            // all of them
	each  map[string]*rate.Limiter // by identity
}

// rations are every node's, by name.
type rations struct {
	mu sync.Mutex // guards of
	of map[string]*ration
}

func (r *rations) node(name string) *ration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.of[name] == nil {
		r.of[name] = &ration{
			atOnce: make(chan struct{}, certsAtOnce), reads: rate.NewLimiter(readRate, readBurst),
			reports: rate.NewLimiter(reportRate, reportBurst),
			warn:    rate.Sometimes{Interval: time.Minute}, each: map[string]*rate.Limiter{},
		}
	}
	return r.of[name]
}

// certificate counts one for an identity that lives so long, at a node that hosts so many, or says that it is too many.
func (r *ration) certificate(identity string, life time.Duration, hosted int, now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	many := rate.Limit(hosted + 1) // and its own
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

// limited is l with these limits; a new one begins full.
func limited(l *rate.Limiter, perSecond rate.Limit, burst int, now time.Time) *rate.Limiter {
	if l == nil {
		return rate.NewLimiter(perSecond, burst)
	}
	l.SetLimitAt(now, perSecond)
	l.SetBurstAt(now, burst)
	return l
}

// tidy forgets identities that have their whole reserve: as good as those never asked for.
func (r *ration) tidy(hosted int, now time.Time) {
	if len(r.each) <= 2*(hosted+1) {
		return
	}
	for id, l := range r.each {
		if l.TokensAt(now) >= certsBurst {
			delete(r.each, id)
		}
	}
}

// enter waits for a place among those that a node has signed at once.
func (r *ration) enter(ctx context.Context) (leave func(), err error) {
	select {
	case r.atOnce <- struct{}{}:
		return func() { <-r.atOnce }, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}
