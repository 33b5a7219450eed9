// Package xds serves Envoy's delta aggregated discovery service (xDS transport protocol, incremental variant).
//
// It does not use go-control-plane's cache, for four reasons. Resources are marshalled once and shared by all proxies.
// An endpoint change finds its subscribers by name and affects nobody else. Versions are content hashes, so a proxy
// that reconnects is not sent what it already has. A rejected resource is recorded and not sent again unchanged.
package xds

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/time/rate"

	"isthmus.dev/isthmus/internal/envoy"
)

// Config of a Server.
type Config struct {
	// Identify returns the proxy's name from its client certificate. What the proxy says about itself does not count.
	Identify func(context.Context) (proxy string, err error)
	// Refused is called whenever a proxy rejects something, with Envoy's message. It must not block.
	Refused func(proxy, reason string)
	Log     *slog.Logger
	Now     func() time.Time
}

// Server holds the resources of each proxy and sends them to connected proxies.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	cfg Config

	mu          sync.Mutex // guards the fields below
	proxies     map[string]*proxy
	endpoints   map[string]*envoy.Resource
	subscribers map[string]map[*stream]struct{} // by endpoint set
}

// proxy is one Envoy, connected or not.
type proxy struct {
	desired *desired
	stream  *stream // nil while it is disconnected
	left    time.Time
	opens   *rate.Limiter
}

func newProxy() *proxy { return &proxy{opens: rate.NewLimiter(openRate, openBurst)} }

// desired is what a proxy should have. It is immutable.
type desired struct {
	generation uint64
	byType     map[string]map[string]*envoy.Resource
	sets       map[string]bool
}

// New returns a server without proxies.
func New(cfg Config) *Server {
	if cfg.Refused == nil {
		cfg.Refused = func(string, string) {}
	}
	return &Server{
		cfg: cfg, proxies: map[string]*proxy{}, endpoints: map[string]*envoy.Resource{},
		subscribers: map[string]map[*stream]struct{}{},
	}
}

// Publish sets what a proxy should have. Only differences are sent. generation identifies the configuration in status.
func (s *Server) Publish(name string, generation uint64, res *envoy.Resources) {
	w := &desired{
		generation: generation, byType: make(map[string]map[string]*envoy.Resource, len(res.ByType)),
		sets: make(map[string]bool, len(res.Sets)),
	}
	for typ, list := range res.ByType {
		byName := make(map[string]*envoy.Resource, len(list))
		for _, r := range list {
			byName[r.Name] = r
		}
		w.byType[typ] = byName
	}
	for _, set := range res.Sets {
		w.sets[envoy.SetName(set)] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proxies[name]
	if p == nil {
		p = newProxy()
		s.proxies[name] = p
	}
	p.desired = w
	p.stream.wake()
}

// Forget removes a proxy that no longer exists and ends its stream.
func (s *Server) Forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.proxies[name]; p != nil {
		p.stream.stop()
		delete(s.proxies, name)
	}
}

// Known returns the proxies for which Publish was called, sorted.
func (s *Server) Known() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, p := range s.proxies {
		if p.desired != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// PublishEndpoints updates endpoint sets; nil removes one. Its cost depends only on the number of their subscribers.
func (s *Server) PublishEndpoints(changed map[string]*envoy.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	woken := map[*stream]struct{}{}
	for name, r := range changed {
		if r == nil {
			delete(s.endpoints, name)
		} else {
			s.endpoints[name] = r
		}
		for st := range s.subscribers[name] {
			woken[st] = struct{}{}
		}
	}
	for st := range woken {
		st.wake()
	}
}

// DeltaAggregatedResources serves one Envoy until its stream ends.
func (s *Server) DeltaAggregatedResources(
	gs discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	name, err := s.cfg.Identify(gs.Context())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(gs.Context())
	defer cancel(nil)
	st := newStream(s, name, gs, cancel)
	opens := s.join(name, st)
	defer s.leave(name, st)
	if err := opens.Wait(ctx); err != nil {
		return st.endError(context.Cause(ctx))
	}
	return st.serve(ctx)
}

// join makes a stream the proxy's only one. It returns the proxy's limiter for opening streams.
func (s *Server) join(name string, st *stream) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proxies[name]
	if p == nil {
		p = newProxy() // its agent has not registered yet, so there is nothing to send
		s.proxies[name] = p
	}
	p.stream.stop() // an Envoy that reconnects has lost its previous stream
	p.stream = st
	return p.opens
}

func (s *Server) leave(name string, st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for set := range st.indexed {
		s.unindex(st, set)
	}
	if p := s.proxies[name]; p != nil && p.stream == st {
		p.stream, p.left = nil, s.cfg.Now()
		if p.desired == nil {
			delete(s.proxies, name)
		}
	}
}

// index records the endpoint sets whose changes wake a stream: those that it requested and its proxy may see. A name
// that is only requested costs nobody else. The caller holds mu.
func (s *Server) index(st *stream, want *desired, asked map[string]struct{}) {
	for set := range want.sets {
		_, ask := asked[set]
		if _, has := st.indexed[set]; ask && !has {
			if s.subscribers[set] == nil {
				s.subscribers[set] = map[*stream]struct{}{}
			}
			s.subscribers[set][st] = struct{}{}
			st.indexed[set] = struct{}{}
		}
	}
	for set := range st.indexed {
		if _, ask := asked[set]; !ask || !want.sets[set] {
			s.unindex(st, set)
		}
	}
	st.indexedFor = want
}

// unindex undoes index. The caller holds mu.
func (s *Server) unindex(st *stream, set string) {
	delete(st.indexed, set)
	delete(s.subscribers[set], st)
	if len(s.subscribers[set]) == 0 {
		delete(s.subscribers, set)
	}
}

// resourceCount returns the number of resources that a proxy was sent.
func (s *Server) resourceCount(proxy string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.proxies[proxy]; p != nil && p.desired != nil {
		n = len(p.desired.sets)
		for _, rs := range p.desired.byType {
			n += len(rs)
		}
	}
	return n
}

// current returns what a proxy should have now: its own resources, and the endpoint sets that it requested and may see.
// Later changes of these wake the stream. anew means that the set of subscriptions has changed.
func (s *Server) current(st *stream, asked map[string]struct{}, anew bool) (*desired, map[string]*envoy.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.proxies[st.proxy]
	if p == nil || p.desired == nil || p.stream != st {
		return nil, nil
	}
	if anew || st.indexedFor != p.desired {
		s.index(st, p.desired, asked)
	}
	eps := make(map[string]*envoy.Resource, len(st.indexed))
	for set := range st.indexed {
		if r := s.endpoints[set]; r != nil {
			eps[set] = r
		}
	}
	return p.desired, eps
}
