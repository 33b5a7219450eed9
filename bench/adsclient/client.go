// Package adsclient is a proxy that only listens: it speaks delta ADS as Envoy does, acknowledges everything and counts
// what it is sent. It knows nothing of Isthmus, so that any control plane can be measured with it.
package adsclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
)

// The resource types, by type URL.
const (
	CDS  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EDS  = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	LDS  = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RDS  = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	SDS  = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
	ECDS = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
)

// Types lists the resource types in the order in which Envoy asks for them.
var Types = [...]string{CDS, EDS, LDS, RDS, SDS, ECDS}

const method = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"

// Config of one client.
type Config struct {
	// Node is sent with the first request; nil where the control plane knows the proxy by its certificate.
	Node *core.Node
	// References may be shared by many clients, so that equal resources are taken apart once; nil makes an own one.
	References *References
	// OnMessage sees each message before it is counted and acknowledged; it must not keep it. May be nil.
	OnMessage func(Message)
}

// Message is one answer as it arrived.
type Message struct {
	At    time.Time
	Type  string
	Bytes int // on the wire, uncompressed, without gRPC's own five
	*discovery.DeltaDiscoveryResponse
}

// Client is one proxy. It outlives its streams: a second Run reconnects with what the first one learned.
type Client struct {
	cfg Config

	mu    sync.Mutex // guards what follows
	types map[string]*subscription
	total Totals
}

// subscription is what the client asked for and got of one type.
type subscription struct {
	wildcard bool
	names    map[string]bool   // asked for by name
	versions map[string]string // got
	needs    map[string][]name // what each resource got refers to
}

// New makes a client. It does nothing until Run.
func New(cfg Config) *Client {
	if cfg.References == nil {
		cfg.References = NewReferences()
	}
	c := &Client{cfg: cfg, types: map[string]*subscription{}, total: Totals{}}
	for _, t := range Types {
		c.types[t] = &subscription{
			wildcard: t == CDS || t == LDS,
			names:    map[string]bool{},
			versions: map[string]string{},
			needs:    map[string][]name{},
		}
	}
	return c
}

// Run opens one stream over conn, to the control plane or to whatever passes its stream on, and serves it until it or
// ctx ends.
func (c *Client) Run(ctx context.Context, conn grpc.ClientConnInterface) error {
	desc := &grpc.StreamDesc{StreamName: "DeltaAggregatedResources", ServerStreams: true, ClientStreams: true}
	stream, err := conn.NewStream(ctx, desc, method, grpc.ForceCodecV2(sizing{}), grpc.MaxCallRecvMsgSize(256<<20))
	if err != nil {
		return fmt.Errorf("open the ADS stream: %w", err)
	}
	for _, req := range c.firstRequests() {
		if err := send(stream, req); err != nil {
			return fmt.Errorf("subscribe to %s: %w", req.TypeUrl, err)
		}
	}
	for {
		f := new(frame)
		if err := stream.RecvMsg(f); err != nil {
			return fmt.Errorf("receive from the ADS stream: %w", err)
		}
		m := Message{At: time.Now(), Type: f.resp.TypeUrl, Bytes: f.size, DeltaDiscoveryResponse: f.resp}
		if c.cfg.OnMessage != nil {
			c.cfg.OnMessage(m)
		}
		for _, req := range c.take(m) {
			if err := send(stream, req); err != nil {
				return fmt.Errorf("answer %s: %w", m.Type, err)
			}
		}
	}
}

// send sends one request. Where the server has ended the stream, its reason is what RecvMsg says.
func send(stream grpc.ClientStream, req *discovery.DeltaDiscoveryRequest) error {
	err := stream.SendMsg(req)
	for errors.Is(err, io.EOF) {
		if reason := stream.RecvMsg(new(frame)); reason != nil {
			return reason
		}
	}
	return err
}

// firstRequests subscribes anew on a new stream, and lists the resources that the client already has, as Envoy does.
func (c *Client) firstRequests() []*discovery.DeltaDiscoveryRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	var reqs []*discovery.DeltaDiscoveryRequest
	for _, t := range Types {
		s := c.types[t]
		req := &discovery.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: slices.Sorted(maps.Keys(s.names))}
		if s.wildcard {
			req.ResourceNamesSubscribe = append([]string{"*"}, req.ResourceNamesSubscribe...)
		}
		if len(req.ResourceNamesSubscribe) == 0 {
			continue
		}
		if len(s.versions) > 0 {
			req.InitialResourceVersions = maps.Clone(s.versions)
		}
		if len(reqs) == 0 {
			req.Node = c.cfg.Node
		}
		reqs = append(reqs, req)
	}
	return reqs
}

// take counts a message, remembers what it brought, and returns the acknowledgement and the new subscriptions.
func (c *Client) take(m Message) []*discovery.DeltaDiscoveryRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total.add(m)
	reqs := []*discovery.DeltaDiscoveryRequest{{TypeUrl: m.Type, ResponseNonce: m.Nonce}}
	s := c.types[m.Type]
	if s == nil {
		return reqs
	}
	for _, r := range m.Resources {
		if r.Resource == nil {
			continue // a TTL heartbeat
		}
		s.versions[r.Name] = r.Version
		s.needs[r.Name] = c.cfg.References.In(r.Resource)
	}
	for _, gone := range m.RemovedResources {
		delete(s.versions, gone)
		delete(s.needs, gone)
	}
	if m.Type == EDS || m.Type == SDS {
		return reqs // they refer to nothing
	}
	return append(reqs, c.resubscribe()...)
}

// resubscribe asks for what has come to be referred to and lets go what no longer is.
func (c *Client) resubscribe() []*discovery.DeltaDiscoveryRequest {
	want := map[string]map[string]bool{}
	for _, t := range Types {
		want[t] = map[string]bool{}
	}
	for _, s := range c.types {
		for _, needs := range s.needs {
			for _, n := range needs {
				want[n.typeURL][n.name] = true
			}
		}
	}
	var reqs []*discovery.DeltaDiscoveryRequest
	for _, t := range Types {
		s := c.types[t]
		req := &discovery.DeltaDiscoveryRequest{
			TypeUrl:                  t,
			ResourceNamesSubscribe:   missing(want[t], s.names),
			ResourceNamesUnsubscribe: missing(s.names, want[t]),
		}
		if len(req.ResourceNamesSubscribe)+len(req.ResourceNamesUnsubscribe) == 0 {
			continue
		}
		for _, gone := range req.ResourceNamesUnsubscribe {
			delete(s.versions, gone)
			delete(s.needs, gone)
		}
		s.names = want[t]
		reqs = append(reqs, req)
	}
	return reqs
}

// missing lists what is in a and not in b, sorted.
func missing(a, b map[string]bool) []string {
	var out []string
	for n := range a {
		if !b[n] {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}
