package federation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Gateway is one of this mesh's own gateways, as its control plane reaches it.
type Gateway struct {
	Name string
	// Dial connects to it, port 15444, by mutual TLS as the control plane, asking for a name.
	Dial func(ctx context.Context, sni string) (net.Conn, error)
}

const (
	// headStart is how long one gateway has alone before the next is tried beside it (RFC 8305 §8).
	headStart = 250 * time.Millisecond
	// answerTime is how long a gateway may take to answer where there are others; suspectTime one that lately did not.
	answerTime  = 2 * time.Second
	suspectTime = 500 * time.Millisecond
	// suspicion is how long a gateway that did not answer comes last.
	suspicion = time.Minute
	// maxRemembered bounds for how many names it is remembered which gateway led there last.
	maxRemembered = 4096
)

// errSilent is how it fails to reach a gateway, rather than what is behind it.
type errSilent struct{ error }

func (e errSilent) Unwrap() error { return e.error }

// Silent says whether an error is that one of this mesh's own gateways does not answer.
func Silent(err error) bool {
	var silent errSilent
	return errors.As(err, &silent)
}

// attempt is one gateway tried.
type attempt struct {
	gateway string
	conn    net.Conn
	err     error
	// at is the gateway's address that answered, connect and handshake what that took.
	at                 string
	connect, handshake time.Duration
}

// onward is what is to be done over a connection that a gateway passes on, before it counts: it returns the connection
// to go on with, or closes what it was given.
type onward func(ctx context.Context, raw net.Conn) (net.Conn, error)

// asItIs goes no further.
func asItIs(_ context.Context, raw net.Conn) (net.Conn, error) { return raw, nil }

// through asks for a name at this mesh's own gateways and goes onward from there: at the one that led there last first,
// and at the next ones beside it where that takes long. The first that leads there counts. On failure the attempt that
// came farthest is returned, with an error that has all.
func (s *Service) through(ctx context.Context, name string, then onward) (*attempt, error) {
	order, suspects := s.roads.order(s.Gateways(), name, s.Now())
	if len(order) == 0 {
		return &attempt{}, errNoGateway
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan *attempt, len(order))
	reached := make([]atomic.Bool, len(order))
	begun, open := 0, 0
	begin := func() {
		n, limit := begun, answerTime
		switch {
		case len(order) == 1:
			limit = 0
		case suspects[order[n].Name] && len(suspects) < len(order):
			limit = suspectTime
		}
		begun, open = begun+1, open+1
		go func() {
			ended <- s.try(ctx, order[n], name, limit, func(ctx context.Context, raw net.Conn) (net.Conn, error) {
				reached[n].Store(true)
				return then(ctx, raw)
			})
		}()
	}
	begin()
	next := time.NewTicker(headStart)
	defer next.Stop()
	var failed []*attempt
	for {
		select {
		case <-next.C:
			if begun < len(order) {
				begin()
			}
		case a := <-ended:
			open--
			if a.err == nil || isFinal(a.err) {
				if a.err == nil {
					s.roads.led(name, a.gateway, unreached(order[:begun], reached), s.Now())
				}
				go closeLate(ended, open)
				return a, a.err
			}
			if Silent(a.err) {
				s.roads.silent(a.gateway, s.Now())
			}
			failed = append(failed, a)
			if begun < len(order) {
				begin()
			} else if open == 0 {
				return farthest(failed), joined(failed)
			}
		}
	}
}

// unreached are the gateways before the last one that answered, which were begun with earlier and have not answered
// yet.
func unreached(begun []Gateway, reached []atomic.Bool) (out []string) {
	last := len(begun) - 1
	for last >= 0 && !reached[last].Load() {
		last--
	}
	for n, g := range begun[:max(last, 0)] {
		if !reached[n].Load() {
			out = append(out, g.Name)
		}
	}
	return out
}

// closeLate closes what comes after it was decided.
func closeLate(ended <-chan *attempt, open int) {
	for range open {
		if a := <-ended; a.conn != nil {
			a.conn.Close()
		}
	}
}

func farthest(all []*attempt) *attempt {
	best := all[0]
	for _, a := range all {
		if a.at != "" && (best.at == "" || Silent(best.err) && !Silent(a.err)) {
			best = a
		}
	}
	return best
}

func joined(failed []*attempt) error {
	var errs []error
	for _, a := range failed {
		errs = append(errs, a.err)
	}
	return errors.Join(errs...)
}

// try asks for a name at one gateway, within a limit if that is not 0, and goes onward.
func (s *Service) try(ctx context.Context, g Gateway, name string, limit time.Duration, then onward) *attempt {
	a, began := &attempt{gateway: g.Name}, time.Now()
	var mu sync.Mutex // guards at and connected: a host's addresses may be tried beside each other
	var at string
	var connected time.Time
	dialing := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{ConnectDone: func(_, addr string, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil && at == "" {
			at, connected = addr, time.Now()
		}
	}})
	if limit > 0 {
		var stop context.CancelFunc
		dialing, stop = context.WithTimeout(dialing, limit)
		defer stop()
	}
	conn, err := g.Dial(dialing, name)
	mu.Lock()
	if a.at = at; at != "" {
		a.connect, a.handshake = connected.Sub(began), time.Since(connected)
	}
	mu.Unlock()
	switch {
	case err != nil:
		a.err = errSilent{fmt.Errorf("reach own gateway %s: %w", g.Name, err)}
	default:
		if a.conn, err = then(ctx, conn); err != nil {
			a.conn, a.err = nil, fmt.Errorf("by way of own gateway %s: %w", g.Name, err)
		}
	}
	return a
}

// roads remembers which gateways led where, and which did not answer.
type roads struct {
	mu      sync.Mutex           // guards all
	by      map[string]string    // gateway by name that was asked for; "" for any
	unheard map[string]time.Time // by gateway: when it did not answer
	barren  map[way]time.Time    // when it led there, and then nothing came of what was asked
}

// way is a gateway that leads to a name.
type way struct{ name, gateway string }

func newRoads() *roads {
	return &roads{by: map[string]string{}, unheard: map[string]time.Time{}, barren: map[way]time.Time{}}
}

// place is under what it is remembered which gateway led to a name: those of acceptances are good once.
func place(name string) string {
	if strings.HasPrefix(name, BootstrapSNI("")) {
		return BootstrapSNI("")
	}
	return name
}

// order is in which order to try, and which of them did not answer lately.
func (r *roads) order(all []Gateway, name string, now time.Time) (order []Gateway, suspects map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := map[string]bool{}
	suspects = map[string]bool{}
	for _, g := range all {
		known[g.Name] = true
		if at, ok := r.unheard[g.Name]; ok && now.Sub(at).Abs() < suspicion {
			suspects[g.Name] = true
		}
	}
	for name := range r.unheard {
		if !known[name] {
			delete(r.unheard, name)
		}
	}
	maps.DeleteFunc(r.barren, func(_ way, at time.Time) bool { return now.Sub(at).Abs() >= suspicion })
	rank := func(g Gateway) int {
		_, barren := r.barren[way{place(name), g.Name}]
		switch {
		case suspects[g.Name]:
			return 4
		case barren:
			return 3
		case g.Name == r.by[place(name)]:
			return 0
		case g.Name == r.by[""]:
			return 1
		}
		return 2
	}
	order = slices.Clone(all)
	slices.SortStableFunc(order, func(a, b Gateway) int { return rank(a) - rank(b) })
	return order, suspects
}

// led notes that a gateway led to a name, while these had not answered.
func (r *roads) led(name, gateway string, overtaken []string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.by) >= maxRemembered {
		clear(r.by)
	}
	r.by[place(name)], r.by[""] = gateway, gateway
	delete(r.unheard, gateway)
	for _, g := range overtaken {
		r.unheard[g] = now
	}
}

func (r *roads) silent(gateway string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unheard[gateway] = now
}

// ledInVain notes that a gateway led to a name, and that no answer came by it: the others are tried before it for a
// while. It may carry no more than a greeting.
func (r *roads) ledInVain(name, gateway string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.barren) >= maxRemembered {
		clear(r.barren)
	}
	r.barren[way{place(name), gateway}] = now
}

// Home goes by way of one of this mesh's own gateways back to this control plane: the road that every peer's control
// plane comes by. Silent tells a gateway that does not answer from one that does not lead here.
func (s *Service) Home(ctx context.Context, g Gateway) error {
	a := s.try(ctx, g, HomeSNI, 0, func(ctx context.Context, raw net.Conn) (net.Conn, error) {
		return s.connect(ctx, raw, HomeSNI, s.isThisOne)
	})
	if a.conn != nil {
		a.conn.Close()
	}
	return a.err
}

// isThisOne checks that a chain is this control plane's.
func (s *Service) isThisOne(chain []*x509.Certificate) error {
	return verifyControl(chain, s.TrustDomain.Name(), s.Snapshot().Roots, s.Now())
}
