package xds

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"

	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
)

type proxyKey struct{}

// newServer serves streams that say in their context which proxy they are.
func newServer() *Server {
	return New(Config{
		Identify: func(ctx context.Context) (string, error) {
			name, ok := ctx.Value(proxyKey{}).(string)
			if !ok {
				return "", errors.New("who is this?")
			}
			return name, nil
		},
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
}

// pipe is the server's end of a stream in memory. Responses wait in a queue of the given length, as in a client's
// window.
type pipe struct {
	grpc.ServerStream
	ctx       context.Context
	requests  chan *discoveryv3.DeltaDiscoveryRequest
	responses chan *discoveryv3.DeltaDiscoveryResponse
}

func (p *pipe) Context() context.Context { return p.ctx }

func (p *pipe) Send(r *discoveryv3.DeltaDiscoveryResponse) error {
	select {
	case p.responses <- r:
		return nil
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
}

func (p *pipe) Recv() (*discoveryv3.DeltaDiscoveryRequest, error) {
	select {
	case r := <-p.requests:
		return r, nil
	case <-p.ctx.Done():
		return nil, io.EOF
	}
}

// client is a well-behaved Envoy: it answers what it gets and keeps what it was told. It must live in a synctest
// bubble.
type client struct {
	t      *testing.T
	pipe   *pipe
	hangUp context.CancelFunc
	ended  chan error

	has    map[string]map[string]string // version by name, by type
	absent map[string][]string          // names that it was told are not there, by type
	log    []string                     // "CDS +a -b", in order
	refuse map[string]string            // by resource name: the reason with which it is refused
}

func dial(t *testing.T, s *Server, proxy string) *client { return dialWindow(t, s, proxy, 100) }

func dialWindow(t *testing.T, s *Server, proxy string, window int) *client {
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), proxyKey{}, proxy))
	c := &client{
		t: t, hangUp: cancel, ended: make(chan error, 1), has: map[string]map[string]string{},
		absent: map[string][]string{}, refuse: map[string]string{},
		pipe: &pipe{
			ctx: ctx, requests: make(chan *discoveryv3.DeltaDiscoveryRequest, 100),
			responses: make(chan *discoveryv3.DeltaDiscoveryResponse, window),
		},
	}
	for _, typ := range envoy.Types {
		c.has[typ] = map[string]string{}
	}
	go func() {
		err := s.DeltaAggregatedResources(c.pipe)
		cancel() // as gRPC does
		c.ended <- err
	}()
	t.Cleanup(cancel)
	return c
}

func (c *client) send(r *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	r.Node = &corev3.Node{Id: "whatever it says"}
	select {
	case c.pipe.requests <- r:
	case <-c.pipe.ctx.Done():
	}
}

// want subscribes to names of a type: none is a wildcard where there is one.
func (c *client) want(typ string, names ...string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ, ResourceNamesSubscribe: names})
}

// begin is Envoy's opening: all clusters and listeners.
func (c *client) begin() {
	c.want(envoy.ClusterType)
	c.want(envoy.ListenerType)
}

// resume opens a new stream with all that an earlier one had.
func (c *client) resume(s *Server, proxy string) *client {
	n := dial(c.t, s, proxy)
	for _, typ := range envoy.Types {
		n.has[typ] = maps.Clone(c.has[typ])
		r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ, InitialResourceVersions: maps.Clone(c.has[typ])}
		if typ != envoy.ClusterType && typ != envoy.ListenerType {
			r.ResourceNamesSubscribe = slices.Sorted(maps.Keys(c.has[typ]))
			if len(r.ResourceNamesSubscribe) == 0 {
				continue
			}
		}
		n.send(r)
	}
	return n
}

// next is one response, not answered yet; nil when none comes.
func (c *client) next() *discoveryv3.DeltaDiscoveryResponse {
	synctest.Wait()
	select {
	case r := <-c.pipe.responses:
		return r
	default:
		return nil
	}
}

// answer takes a response in, or refuses it.
func (c *client) answer(r *discoveryv3.DeltaDiscoveryResponse) {
	c.t.Helper()
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}
	line := ShortType(r.TypeUrl)
	for _, res := range r.Resources {
		if reason, bad := c.refuse[res.Name]; bad {
			line += " !" + res.Name
			ack.ErrorDetail = &rpcstatus.Status{Code: 13, Message: ack.GetErrorDetail().GetMessage() + reason}
			continue
		}
		line += " +" + res.Name
		c.has[r.TypeUrl][res.Name] = res.Version
	}
	for _, name := range r.RemovedResources {
		line += " -" + name
		delete(c.has[r.TypeUrl], name)
		c.absent[r.TypeUrl] = append(c.absent[r.TypeUrl], name)
	}
	c.log = append(c.log, line)
	c.send(ack)
}

// quiet answers until nothing more comes, and returns what came: "CDS +a +b -c" for each response.
func (c *client) quiet() []string {
	c.t.Helper()
	for r := c.next(); r != nil; r = c.next() {
		c.answer(r)
	}
	said := c.log
	c.log = nil
	return said
}

// end is what the stream ended with; it must have ended.
func (c *client) end() error {
	c.t.Helper()
	synctest.Wait()
	select {
	case err := <-c.ended:
		return err
	default:
		c.t.Fatal("the stream goes on")
		return nil
	}
}

func (c *client) open() bool { synctest.Wait(); return len(c.ended) == 0 }

// res is a resource of which the body counts.
func res(typ, name, body string) *envoy.Resource {
	return &envoy.Resource{
		Type: typ, Name: name, Version: "v" + strconv.Itoa(len(body)) + body[:min(len(body), 8)], Body: []byte(body),
	}
}

// cluster subscribes to an endpoint set.
func cluster(name, body, set string) *envoy.Resource {
	r := res(envoy.ClusterType, name, body)
	r.Set = set
	return r
}

func listener(name, body string) *envoy.Resource { return res(envoy.ListenerType, name, body) }

func endpoints(name, body string) map[string]*envoy.Resource {
	return map[string]*envoy.Resource{name: res(envoy.EndpointType, name, body)}
}

// told is what a proxy should have: sets it may see ("host" means port 80), and resources.
func told(sets []string, rs ...*envoy.Resource) *envoy.Resources {
	out := &envoy.Resources{ByType: map[string][]*envoy.Resource{}}
	for _, r := range rs {
		out.ByType[r.Type] = append(out.ByType[r.Type], r)
	}
	for _, host := range sets {
		out.Sets = append(out.Sets, model.EndpointSet{Host: host, Port: 80})
	}
	return out
}
