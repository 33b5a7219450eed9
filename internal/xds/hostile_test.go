package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/waittest"
)

// TestHostileClientsDelayNobody measures over real connections how long an endpoint change takes to 20 proxies, alone
// and beside clients that do their worst. The attackers' own work is on the same processors, and so is whatever else
// runs, so that only a standstill fails here; that each attack is held back is tested with a clock of its own, in
// attack_test.go.
func TestHostileClientsDelayNobody(t *testing.T) {
	w := newWire(t)
	const good, rounds = 20, 30
	var proxies []*listening
	for i := range good {
		name := fmt.Sprint("good", i)
		w.server.Publish(name, 1, told([]string{"x"}, listener("l1", "1")))
		proxies = append(proxies, w.listen(t, name))
	}
	usual := p99(w.changes(t, proxies, rounds))
	stop := w.attack(t)
	under := p99(w.changes(t, proxies, rounds))
	stop()
	t.Logf("p99 alone %s, under attack %s", usual, under)
	if under > 2*usual+time.Second {
		t.Errorf("p99 alone %s, under attack %s", usual, under)
	}
}

func p99(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)*99/100]
}

// wire is a server behind real gRPC on loopback.
type wire struct {
	server *Server
	addr   string
	serial int
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := &wire{server: New(Config{
		Identify: func(ctx context.Context) (string, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			if names := md.Get("proxy"); len(names) == 1 {
				return names[0], nil
			}
			return "", errors.New("who is this?")
		},
		Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, w.server)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	w.addr = l.Addr().String()
	return w
}

func (w *wire) dial(
	ctx context.Context, proxy string,
) (discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient, func(), error) {
	conn, err := grpc.NewClient(w.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, nil, err
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "proxy", proxy)
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	return s, func() { conn.Close() }, err
}

// listening is a proxy that says which version of x:80 it has.
type listening struct{ heard chan string }

func (w *wire) listen(t *testing.T, proxy string) *listening {
	t.Helper()
	s, done, err := w.dial(t.Context(), proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(done)
	p := &listening{heard: make(chan string, 1000)}
	s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.EndpointType, ResourceNamesSubscribe: []string{"x:80"}})
	go func() {
		for {
			r, err := s.Recv()
			if err != nil {
				return
			}
			s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
			for _, x := range r.Resources {
				p.heard <- string(x.Resource.Value)
			}
		}
	}()
	return p
}

// changes makes one change after the other, and measures how long each takes to each proxy.
func (w *wire) changes(t *testing.T, proxies []*listening, rounds int) (took []time.Duration) {
	t.Helper()
	for range rounds {
		w.serial++
		body := fmt.Sprintf("%08d", w.serial)
		begun := time.Now()
		w.server.PublishEndpoints(endpoints("x:80", body))
		for _, p := range proxies {
			for heard := ""; heard != body; {
				select {
				case heard = <-p.heard:
				case <-time.After(5 * time.Second):
					t.Fatalf("a proxy did not hear of %s", body)
				}
			}
			took = append(took, time.Since(begun))
		}
		waittest.Pace(5 * time.Millisecond)
	}
	return took
}

// attack lets one of each kind of client do its worst until stop is called.
func (w *wire) attack(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	type stream = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	for name, attack := range map[string]func(stream) error{
		"does not read": func(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) error {
			s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.ListenerType})
			s.Send(&discoveryv3.DeltaDiscoveryRequest{
				TypeUrl:                envoy.EndpointType,
				ResourceNamesSubscribe: []string{"x:80"},
			})
			<-ctx.Done()
			return ctx.Err()
		},
		"refuses everything": func(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) error {
			err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.ListenerType})
			for err == nil {
				var r *discoveryv3.DeltaDiscoveryResponse
				if r, err = s.Recv(); err == nil {
					err = s.Send(&discoveryv3.DeltaDiscoveryRequest{
						TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce,
						ErrorDetail:            &rpcstatus.Status{Message: strings.Repeat("no ", 10_000)},
						ResourceNamesSubscribe: []string{"l1"},
					})
				}
			}
			return err
		},
		"names a million": func(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) error {
			err := error(nil)
			for i := 0; err == nil; i++ {
				err = s.Send(&discoveryv3.DeltaDiscoveryRequest{
					TypeUrl:                envoy.EndpointType,
					ResourceNamesSubscribe: invented(9000, 8+i),
				})
			}
			return err
		},
		"forges": func(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient) error {
			err := error(nil)
			for i := 0; err == nil; i++ {
				err = s.Send(&discoveryv3.DeltaDiscoveryRequest{
					TypeUrl:       envoy.Types[i%5],
					ResponseNonce: fmt.Sprint(i),
				})
			}
			return err
		},
	} {
		big := []*envoy.Resource{}
		for i := range 1000 {
			big = append(big, listener(fmt.Sprint("l", i), strings.Repeat("x", 1000)))
		}
		w.server.Publish(name, 1, told([]string{"x"}, big...))
		all.Go(func() {
			for ctx.Err() == nil {
				if s, done, err := w.dial(ctx, name); err == nil {
					attack(s)
					done()
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}
