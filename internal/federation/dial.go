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

// Gateway is one of this mesh's gateways as seen by its control plane.
type Gateway struct {
	Name string
	// Dial connects to its port 15444 with mutual TLS as the control plane, with this server name.
	Dial func(ctx context.Context, sni string) (net.Conn, error)
}

const (
	// headStart is the delay before the next gateway is tried in parallel (RFC 8305 §8).
	headStart = 250 * time.Millisecond
	// answerTime is how long a gateway may take to answer if there are others. suspectTime applies to a gateway that
	// failed to answer recently.
	answerTime  = 2 * time.Second
	suspectTime = 500 * time.Millisecond
	// suspicion is how long a gateway that did not answer is tried last.
	suspicion = time.Minute
	// maxRemembered bounds the names whose last working gateway is remembered.
	maxRemembered = 4096
)

// errSilent wraps a failure to reach the gateway itself, as opposed to what is behind it.
type errSilent struct{ error }

func (e errSilent) Unwrap() error { return e.error }

// IsGatewaySilent reports whether err means that one of this mesh's own gateways does not answer.
func IsGatewaySilent(err error) bool {
	var silent errSilent
	return errors.As(err, &silent)
}

// attempt is the outcome of trying one gateway.
type attempt struct {
	gateway string
	conn    net.Conn
	err     error
	// at is the address that answered. connect and handshake are the durations of the two.
	at                 string
	connect, handshake time.Duration
}

// nextStep runs on a connection through a gateway before the attempt counts as a success. It returns the connection to
// continue with, or closes the one that it got.
type nextStep func(ctx context.Context, raw net.Conn) (net.Conn, error)

// plainConn returns the nextStep that does nothing.
func plainConn(_ context.Context, raw net.Conn) (net.Conn, error) { return raw, nil }

// dialThrough dials a name through this mesh's gateways and runs then on the connection. It starts with the gateway
// that worked last, tries others in parallel if that takes long, and uses the first success. On failure it returns the
// attempt that got furthest, with all errors.
func (s *Service) dialThrough(ctx context.Context, name string, then nextStep) (*attempt, error) {
	order, suspects := s.memory.order(s.Gateways(), name, s.Now())
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
			ended <- s.dialGateway(ctx, order[n], name, limit,
				func(ctx context.Context, raw net.Conn) (net.Conn, error) {
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
					s.memory.recordSuccess(name, a.gateway, stillSilent(order[:begun], reached), s.Now())
				}
				go closeRemaining(ended, open)
				return a, a.err
			}
			if IsGatewaySilent(a.err) {
				s.memory.recordSilence(a.gateway, s.Now())
			}
			failed = append(failed, a)
			if begun < len(order) {
				begin()
			} else if open == 0 {
				return farthest(failed), joinErrors(failed)
			}
		}
	}
}

// stillSilent returns the gateways that were started before the last one that answered and have not answered yet.
func stillSilent(begun []Gateway, reached []atomic.Bool) (out []string) {
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

// closeRemaining closes attempts that complete after one was chosen.
func closeRemaining(ended <-chan *attempt, open int) {
	for range open {
		if a := <-ended; a.conn != nil {
			a.conn.Close()
		}
	}
}

func farthest(all []*attempt) *attempt {
	best := all[0]
	for _, a := range all {
		if a.at != "" && (best.at == "" || IsGatewaySilent(best.err) && !IsGatewaySilent(a.err)) {
			best = a
		}
	}
	return best
}

func joinErrors(failed []*attempt) error {
	var errs []error
	for _, a := range failed {
		errs = append(errs, a.err)
	}
	return errors.Join(errs...)
}

// dialGateway dials a name through one gateway and runs then on the connection. A limit other than 0 bounds the
// dialling.
func (s *Service) dialGateway(
	ctx context.Context, g Gateway, name string, limit time.Duration, then nextStep,
) *attempt {
	a, began := &attempt{gateway: g.Name}, time.Now()
	var mu sync.Mutex // guards at and connected: several addresses may be tried in parallel
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

// gatewayMemory remembers which gateways led to which names and which did not answer.
type gatewayMemory struct {
	mu         sync.Mutex              // guards the fields below
	by         map[string]string       // last working gateway by name; "" for any name
	unanswered map[string]time.Time    // by gateway: when it last failed to answer
	deadEnds   map[candidate]time.Time // when a gateway last accepted the name but no answer came
}

// candidate is a gateway for a name.
type candidate struct{ name, gateway string }

func newGatewayMemory() *gatewayMemory {
	return &gatewayMemory{
		by: map[string]string{}, unanswered: map[string]time.Time{},
		deadEnds: map[candidate]time.Time{},
	}
}

// memoryKey returns the key of a name in gatewayMemory. Invitation names, each used once, share one key.
func memoryKey(name string) string {
	if strings.HasPrefix(name, BootstrapSNI("")) {
		return BootstrapSNI("")
	}
	return name
}

// order returns the gateways in the order to try, and those that recently did not answer.
func (r *gatewayMemory) order(all []Gateway, name string, now time.Time) (order []Gateway, suspects map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := map[string]bool{}
	suspects = map[string]bool{}
	for _, g := range all {
		known[g.Name] = true
		if at, ok := r.unanswered[g.Name]; ok && now.Sub(at).Abs() < suspicion {
			suspects[g.Name] = true
		}
	}
	for name := range r.unanswered {
		if !known[name] {
			delete(r.unanswered, name)
		}
	}
	maps.DeleteFunc(r.deadEnds, func(_ candidate, at time.Time) bool { return now.Sub(at).Abs() >= suspicion })
	rank := func(g Gateway) int {
		_, deadEnd := r.deadEnds[candidate{memoryKey(name), g.Name}]
		switch {
		case suspects[g.Name]:
			return 4
		case deadEnd:
			return 3
		case g.Name == r.by[memoryKey(name)]:
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

// recordSuccess notes that gateway led to name, and that the overtaken gateways had not answered by then.
func (r *gatewayMemory) recordSuccess(name, gateway string, overtaken []string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.by) >= maxRemembered {
		clear(r.by)
	}
	r.by[memoryKey(name)], r.by[""] = gateway, gateway
	delete(r.unanswered, gateway)
	for _, g := range overtaken {
		r.unanswered[g] = now
	}
}

func (r *gatewayMemory) recordSilence(gateway string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unanswered[gateway] = now
}

// recordDeadEnd notes that gateway accepted name but no answer came through it. Others are preferred for a while.
func (r *gatewayMemory) recordDeadEnd(name, gateway string, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.deadEnds) >= maxRemembered {
		clear(r.deadEnds)
	}
	r.deadEnds[candidate{memoryKey(name), gateway}] = now
}

// CheckGateway dials this control plane through one of its own gateways, as peers' control planes do. IsGatewaySilent
// distinguishes a gateway that does not answer from one that leads elsewhere.
func (s *Service) CheckGateway(ctx context.Context, g Gateway) error {
	a := s.dialGateway(ctx, g, HomeSNI, 0, func(ctx context.Context, raw net.Conn) (net.Conn, error) {
		return s.connect(ctx, raw, HomeSNI, s.isThisOne)
	})
	if a.conn != nil {
		a.conn.Close()
	}
	return a.err
}

// isThisOne checks that a chain is this control plane's own.
func (s *Service) isThisOne(chain []*x509.Certificate) error {
	return verifyControl(chain, s.TrustDomain.Name(), s.Snapshot().Roots, s.Now())
}
