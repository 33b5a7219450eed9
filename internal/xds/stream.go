package xds

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/envoy"
)

const (
	// maxNames bounds the names that one stream may subscribe to in one type.
	maxNames = 10_000
	// maxResponse bounds one response, in bytes of resources; the rest follows when it is answered.
	maxResponse = 2 << 20
)

var errReplaced = errors.New("stream ended by the control plane")

// stream is one Envoy's conversation. Its types belong to the goroutine in serve; wake and stop may be called by any.
type stream struct {
	server *Server
	proxy  string
	grpc   discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	cancel context.CancelCauseFunc
	awake  chan struct{}
	nonce  uint64
	since  time.Time
	types  map[string]*typeState

	mu     sync.Mutex // guards status
	status map[string]typeStatus
}

// typeState is the conversation about one resource type.
type typeState struct {
	known      bool // the client asked for this type
	wildcard   bool
	subscribed map[string]struct{}
	sent       map[string]string // version by name: what the client has, or refused
	missing    map[string]bool   // names asked for that do not exist, and the client knows
	answer     string            // nonce that must be answered before more is sent
	greeted    bool              // a wildcard subscription has had its first response
	inFlight   uint64            // generation being answered
}

func newStream(s *Server, proxy string, gs discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer, cancel context.CancelCauseFunc) *stream {
	st := &stream{
		server: s, proxy: proxy, grpc: gs, cancel: cancel, awake: make(chan struct{}, 1), since: s.cfg.Now(),
		types: make(map[string]*typeState, len(envoy.Types)), status: map[string]typeStatus{},
	}
	for _, t := range envoy.Types {
		st.types[t] = &typeState{subscribed: map[string]struct{}{}, sent: map[string]string{}, missing: map[string]bool{}}
	}
	return st
}

// wake says that something may have changed. It never blocks.
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

// serve answers requests and changes until the stream ends.
func (st *stream) serve(ctx context.Context) error {
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	failed := make(chan error, 1)
	go func() {
		for {
			r, err := st.grpc.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errReplaced) {
				return status.Error(codes.Aborted, "another stream of this proxy took over, or the proxy was removed")
			}
			return nil
		case <-failed:
			return nil // the client went; there is nobody to tell
		case r := <-requests:
			if err := st.request(r); err != nil {
				return err
			}
		case <-st.awake:
		}
		if err := st.push(); err != nil {
			return err
		}
	}
}

// request takes in one message: an answer, a change of subscriptions, or both.
func (st *stream) request(r *discoveryv3.DeltaDiscoveryRequest) error {
	ts := st.types[r.TypeUrl]
	if ts == nil {
		return status.Errorf(codes.InvalidArgument, "resource type %q is not served", r.TypeUrl)
	}
	if r.ResponseNonce != "" && r.ResponseNonce == ts.answer {
		ts.answer = ""
		st.answered(r, ts)
	}
	first := !ts.known
	ts.known = true
	if first {
		for name, version := range r.InitialResourceVersions {
			ts.sent[name] = version
		}
		ts.greeted = len(r.InitialResourceVersions) > 0
		// A first request without names subscribes to everything (xDS: wildcard, legacy form).
		ts.wildcard = len(r.ResourceNamesSubscribe) == 0 && (r.TypeUrl == envoy.ClusterType || r.TypeUrl == envoy.ListenerType)
	}
	if len(ts.subscribed)+len(r.ResourceNamesSubscribe) > maxNames {
		return status.Errorf(codes.ResourceExhausted, "more than %d names of type %s", maxNames, r.TypeUrl)
	}
	for _, name := range r.ResourceNamesSubscribe {
		if name == "*" {
			ts.wildcard = true
			continue
		}
		if !first {
			delete(ts.sent, name) // asked for anew: it is sent even if unchanged (xDS: subscribing again)
		}
		delete(ts.missing, name)
		ts.subscribed[name] = struct{}{}
	}
	for _, name := range r.ResourceNamesUnsubscribe {
		if name == "*" {
			ts.wildcard = false
		}
		delete(ts.subscribed, name)
		delete(ts.sent, name)
		delete(ts.missing, name)
	}
	if r.TypeUrl == envoy.EndpointType {
		st.server.subscribe(st, r.ResourceNamesSubscribe, r.ResourceNamesUnsubscribe)
	}
	return nil
}

// push sends what differs, type by type, in an order that never leaves a listener or route without its cluster.
func (st *stream) push() error {
	want, eps := st.server.current(st.proxy, st.types[envoy.EndpointType].subscribed)
	if want == nil {
		return nil
	}
	for _, typ := range envoy.Types {
		available := want.byType[typ]
		if typ == envoy.EndpointType {
			available = eps
		}
		if (typ == envoy.ListenerType || typ == envoy.RouteType) && st.clustersUnsettled() {
			return nil // their answer comes back here
		}
		if err := st.pushType(typ, want.generation, available); err != nil {
			return err
		}
	}
	return st.removeClusters(want)
}

// clustersUnsettled: Envoy has not answered about clusters or their endpoints yet.
func (st *stream) clustersUnsettled() bool {
	return st.types[envoy.ClusterType].answer != "" || st.types[envoy.EndpointType].answer != ""
}

func (st *stream) pushType(typ string, generation uint64, available map[string]*envoy.Resource) error {
	ts := st.types[typ]
	if !ts.known || ts.answer != "" {
		return nil
	}
	d := difference(ts, available)
	if typ == envoy.ClusterType {
		d.removed = nil // see removeClusters
	}
	if d.empty() && (ts.greeted || !ts.wildcard) {
		st.settled(typ, ts, generation)
		return nil
	}
	ts.greeted = true
	return st.send(typ, ts, generation, d)
}

// removeClusters takes clusters away once no listener or route that Envoy has refers to them any more.
func (st *stream) removeClusters(want *wanted) error {
	ts := st.types[envoy.ClusterType]
	if !ts.known || ts.answer != "" || st.types[envoy.ListenerType].answer != "" || st.types[envoy.RouteType].answer != "" {
		return nil
	}
	d := difference(ts, want.byType[envoy.ClusterType])
	if len(d.removed) == 0 {
		return nil
	}
	return st.send(envoy.ClusterType, ts, want.generation, delta{removed: d.removed})
}

func (st *stream) send(typ string, ts *typeState, generation uint64, d delta) error {
	st.nonce++
	ts.answer, ts.inFlight = strconv.FormatUint(st.nonce, 36), generation
	resp := &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl: typ, Nonce: ts.answer, RemovedResources: d.removed, SystemVersionInfo: strconv.FormatUint(generation, 10),
	}
	size := 0
	for _, r := range d.changed {
		if size += len(r.Body); size > maxResponse && len(resp.Resources) > 0 {
			break
		}
		resp.Resources = append(resp.Resources, &discoveryv3.Resource{
			Name: r.Name, Version: r.Version, Resource: &anypb.Any{TypeUrl: r.Type, Value: r.Body},
		})
		if _, had := ts.sent[r.Name]; had && r.Set != "" {
			delete(st.types[envoy.EndpointType].sent, r.Set) // a changed cluster warms anew and waits for its endpoints
		}
		ts.sent[r.Name] = r.Version
	}
	for _, name := range d.removed {
		delete(ts.sent, name)
		if _, asked := ts.subscribed[name]; asked {
			ts.missing[name] = true
		}
	}
	st.note(typ, ts, generation, resp)
	return st.grpc.Send(resp)
}
