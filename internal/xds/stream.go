package xds

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/errand"
)

// Limits on the cost of one client. No Envoy comes near them.
const (
	// maxNames limits the names of one type that a stream may subscribe to, in addition to those that it was sent: a
	// mesh may exceed any limit, and a client that requests what it was sent must not be cut off. maxHeld limits the
	// resources that it may claim to have.
	maxNames = 10_000
	maxHeld  = 100_000
	// maxName limits one name, in bytes.
	maxName = 1024
	// maxResponse limits one response, in bytes of resources. The rest follows after the client's answer.
	maxResponse = 2 << 20
	// requestRate limits the requests read from one stream per second, after a burst. Further ones wait in the client.
	// Every namesPerRequest names count as one more request.
	requestRate     = 100
	requestBurst    = 200
	namesPerRequest = 50
	// openRate limits the streams that one proxy opens per second, after a burst.
	openRate  = 2
	openBurst = 10
	// sendPatience is how long a response may wait for a client that does not read.
	sendPatience = 30 * time.Second
)

var (
	errReplaced = errors.New("stream ended by the control plane")
	errStalled  = errors.New("the client does not read")
)

// stream is the session of one Envoy. The goroutine in serve owns types. wake and stop may be called from any
// goroutine.
type stream struct {
	server  *Server
	proxy   string
	grpc    discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	cancel  context.CancelCauseFunc
	awake   chan struct{}
	out     chan *discoveryv3.DeltaDiscoveryResponse // waits to be sent
	sending *errand.Errand                           // sends it
	nonce   uint64
	since   time.Time
	types   map[string]*typeState
	anew    bool // endpoint sets were requested or dropped since the last push
	// owed are endpoint sets that clusters wait for and that were sent before the client said which ones it has. A
	// reconnecting client says so in its first request for endpoints, after that for clusters.
	owed map[string]struct{}

	// guarded by server.mu:
	indexed    map[string]struct{} // endpoint sets whose changes wake this stream
	indexedFor *desired            // the desired state that indexed was computed for

	mu     sync.Mutex // guards status
	status map[string]typeStatus
}

// typeState is the state of one resource type on a stream.
type typeState struct {
	known      bool // the client has requested this type
	wildcard   bool
	subscribed map[string]struct{}
	sent       map[string]string // version by name: what the client has or rejected
	missing    map[string]bool   // requested names that do not exist, as the client knows
	answer     string            // nonce that must be answered before more is sent
	greeted    bool              // a wildcard subscription has had its first response
	inFlight   uint64            // generation awaiting an answer
	flight     []string          // names in it
	more       bool              // it did not contain the whole generation
	refused    map[string]string // reason by name of each rejected resource, until it is replaced
}

func newStream(
	s *Server, proxy string, gs discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
	cancel context.CancelCauseFunc,
) *stream {
	st := &stream{
		server: s, proxy: proxy, grpc: gs, cancel: cancel, awake: make(chan struct{}, 1), since: s.cfg.Now(),
		// at most one response per type is in flight
		out:   make(chan *discoveryv3.DeltaDiscoveryResponse, len(envoy.Types)),
		types: make(map[string]*typeState, len(envoy.Types)), status: map[string]typeStatus{},
		indexed: map[string]struct{}{}, owed: map[string]struct{}{},
	}
	for _, t := range envoy.Types {
		st.types[t] = &typeState{
			subscribed: map[string]struct{}{}, sent: map[string]string{}, missing: map[string]bool{},
			refused: map[string]string{},
		}
	}
	return st
}

// wake signals a possible change. It never blocks.
func (st *stream) wake() {
	if st == nil {
		return
	}
	select {
	case st.awake <- struct{}{}:
	default:
	}
}

func (st *stream) stop() {
	if st != nil {
		st.cancel(errReplaced)
	}
}

// serve handles requests and changes until the stream ends. A client that does not read blocks only deliver, which ends
// with the stream.
func (st *stream) serve(ctx context.Context) error {
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	gone := make(chan error, 2)
	go st.receive(ctx, requests, gone)
	st.sending = errand.New(func() error { return st.deliver(ctx) }, gone)
	for {
		select {
		case <-ctx.Done():
			return st.endError(context.Cause(ctx))
		case <-gone:
			return nil // the client is gone
		case r := <-requests:
			if err := st.request(r); err != nil {
				return err
			}
		case <-st.awake:
		}
		if err := st.push(ctx); err != nil {
			return err
		}
	}
}

// endError returns the error that ends the client's stream.
func (st *stream) endError(cause error) error {
	switch {
	case errors.Is(cause, errReplaced):
		return status.Error(codes.Aborted, "another stream of this proxy took over, or the proxy was removed")
	case errors.Is(cause, errStalled):
		st.server.cfg.Log.Warn("proxy does not read, stream ended", "proxy", st.proxy, "patience", sendPatience)
		return status.Errorf(codes.Aborted, "nothing was read for %s", sendPatience)
	}
	return nil
}

// receive passes requests to serve, at most requestRate per second.
func (st *stream) receive(
	ctx context.Context, requests chan<- *discoveryv3.DeltaDiscoveryRequest, gone chan<- error,
) {
	limit := rate.NewLimiter(requestRate, requestBurst)
	for {
		r, err := st.grpc.Recv()
		if err != nil {
			gone <- err
			return
		}
		names := len(r.ResourceNamesSubscribe) + len(r.ResourceNamesUnsubscribe) + len(r.InitialResourceVersions)
		if limit.WaitN(ctx, min(1+names/namesPerRequest, requestBurst)) != nil {
			return
		}
		select {
		case requests <- r:
		case <-ctx.Done():
			return
		}
	}
}

// deliver sends the responses that wait, each within sendPatience.
func (st *stream) deliver(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case resp := <-st.out:
			stalled := time.AfterFunc(sendPatience, func() { st.cancel(errStalled) })
			err := st.grpc.Send(resp)
			stalled.Stop()
			if err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// request handles one message: an answer, a change of subscriptions, or both.
func (st *stream) request(r *discoveryv3.DeltaDiscoveryRequest) error {
	ts := st.types[r.TypeUrl]
	if ts == nil {
		return status.Errorf(codes.InvalidArgument, "resource type %q is not served", r.TypeUrl)
	}
	if r.ResponseNonce != "" && r.ResponseNonce == ts.answer {
		ts.answer = ""
		if reason := st.answered(r, ts); reason != "" {
			st.server.cfg.Refused(st.proxy, ShortType(r.TypeUrl)+": "+reason)
		}
	}
	first := !ts.known
	if err := st.checkLimits(ts, r, first); err != nil {
		return err
	}
	ts.known = true
	if first {
		for name, version := range r.InitialResourceVersions {
			if _, owed := st.owed[name]; !owed || r.TypeUrl != envoy.EndpointType {
				ts.sent[name] = version
			}
		}
		if r.TypeUrl == envoy.EndpointType {
			st.owed = nil
		}
		ts.greeted = len(r.InitialResourceVersions) > 0
		// A first request without names subscribes to everything (xDS: wildcard, legacy form).
		ts.wildcard = len(r.ResourceNamesSubscribe) == 0 &&
			(r.TypeUrl == envoy.ClusterType || r.TypeUrl == envoy.ListenerType)
	}
	for _, name := range r.ResourceNamesSubscribe {
		if name == "*" {
			ts.wildcard = true
			continue
		}
		if !first {
			delete(ts.sent, name) // the client subscribed again, so it is sent even if unchanged (xDS)
		}
		delete(ts.missing, name)
		ts.subscribed[name] = struct{}{}
	}
	for _, name := range r.ResourceNamesUnsubscribe {
		if name == "*" {
			ts.wildcard = false
			continue
		}
		delete(ts.subscribed, name)
		delete(ts.sent, name)
		delete(ts.missing, name)
		delete(ts.refused, name)
	}
	if r.TypeUrl == envoy.EndpointType && len(r.ResourceNamesSubscribe)+len(r.ResourceNamesUnsubscribe) > 0 {
		st.anew = true
	}
	return nil
}

// checkLimits refuses requests that exceed what any Envoy sends.
func (st *stream) checkLimits(ts *typeState, r *discoveryv3.DeltaDiscoveryRequest, first bool) error {
	if n := len(ts.subscribed) + len(r.ResourceNamesSubscribe); n > maxNames &&
		n > maxNames+st.server.resourceCount(st.proxy) {
		return status.Errorf(codes.ResourceExhausted, "more than %d names of type %s", maxNames, ShortType(r.TypeUrl))
	}
	if first && len(r.InitialResourceVersions) > maxHeld {
		return status.Errorf(codes.ResourceExhausted, "more than %d resources of type %s",
			maxHeld, ShortType(r.TypeUrl))
	}
	for _, name := range r.ResourceNamesSubscribe {
		if len(name) > maxName {
			return status.Errorf(codes.InvalidArgument, "a name of type %s has %d bytes, more than %d",
				ShortType(r.TypeUrl), len(name), maxName)
		}
	}
	return nil
}

// push sends differences type by type, in an order in which no listener or route lacks its cluster.
func (st *stream) push(ctx context.Context) error {
	want, eps := st.server.current(st, st.types[envoy.EndpointType].subscribed, st.anew)
	if want == nil {
		return nil
	}
	st.anew = false
	for _, typ := range envoy.Types {
		available := want.byType[typ]
		if typ == envoy.EndpointType {
			available = eps
		}
		if (typ == envoy.ListenerType || typ == envoy.RouteType) && st.clustersUnsettled() {
			return nil // their answer leads back here
		}
		if err := st.pushType(ctx, typ, want.generation, available); err != nil {
			return err
		}
	}
	return st.removeClusters(ctx, want)
}

// clustersUnsettled reports whether Envoy has yet to answer about clusters or their endpoints.
func (st *stream) clustersUnsettled() bool {
	return st.types[envoy.ClusterType].answer != "" || st.types[envoy.EndpointType].answer != ""
}

func (st *stream) pushType(
	ctx context.Context, typ string, generation uint64, available map[string]*envoy.Resource,
) error {
	ts := st.types[typ]
	if !ts.known || ts.answer != "" {
		return nil
	}
	d := difference(ts, available)
	if typ == envoy.ClusterType {
		d.removed = nil // see removeClusters
	}
	if d.empty() && (ts.greeted || !ts.wildcard) {
		st.recordUnchanged(typ, ts, generation)
		return nil
	}
	ts.greeted = true
	return st.send(ctx, typ, ts, generation, d)
}

// removeClusters removes clusters that no listener or route in Envoy refers to.
func (st *stream) removeClusters(ctx context.Context, want *desired) error {
	ts := st.types[envoy.ClusterType]
	if !ts.known || ts.answer != "" || st.types[envoy.ListenerType].answer != "" ||
		st.types[envoy.RouteType].answer != "" {
		return nil
	}
	d := difference(ts, want.byType[envoy.ClusterType])
	if len(d.removed) == 0 {
		return nil
	}
	return st.send(ctx, envoy.ClusterType, ts, want.generation, delta{removed: d.removed})
}

func (st *stream) send(ctx context.Context, typ string, ts *typeState, generation uint64, d delta) error {
	st.nonce++
	ts.answer, ts.inFlight, ts.more, ts.flight = strconv.FormatUint(st.nonce, 36), generation, false,
		slices.Clone(d.removed)
	resp := &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: typ, Nonce: ts.answer, RemovedResources: d.removed,
		SystemVersionInfo: strconv.FormatUint(generation, 10),
	}
	size := 0
	for _, r := range d.changed {
		if size += len(r.Body); size > maxResponse && len(resp.Resources) > 0 {
			ts.more = true
			break
		}
		resp.Resources = append(resp.Resources, &discoveryv3.Resource{
			Name: r.Name, Version: r.Version, Resource: &anypb.Any{TypeUrl: r.Type, Value: r.Body},
		})
		if r.Set != "" {
			// A new or changed cluster waits for its endpoints, and Envoy does not request a set again that another
			// cluster uses.
			eps := st.types[envoy.EndpointType]
			delete(eps.sent, r.Set)
			if !eps.known {
				st.owed[r.Set] = struct{}{}
			}
		}
		ts.sent[r.Name] = r.Version
		ts.flight = append(ts.flight, r.Name)
	}
	for _, name := range d.removed {
		delete(ts.sent, name)
		if _, asked := ts.subscribed[name]; asked {
			ts.missing[name] = true
		}
	}
	st.recordSent(typ, ts, generation)
	select {
	case st.out <- resp:
		st.sending.Ask()
		return nil
	case <-ctx.Done():
		return st.endError(context.Cause(ctx))
	}
}
