package adsproxy

import (
	"context"
	"net"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// mute is a control plane that says nothing and counts who listens.
type mute struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	open chan int
}

func (m mute) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	m.open <- 1
	<-s.Context().Done()
	m.open <- -1
	return nil
}

// An Envoy has one stream to the control plane, however many it opens: the newest.
func TestOneStreamOfAnEnvoy(t *testing.T) {
	control := mute{open: make(chan int, 1000)}
	server := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(server, control)
	conn := serve(t, server)

	agent := grpc.NewServer(grpc.ForceServerCodecV2(NewCodec()))
	New(func() *grpc.ClientConn { return conn }, "").Register(agent)
	envoy := discoveryv3.NewAggregatedDiscoveryServiceClient(serve(t, agent))
	for range 300 {
		if _, err := envoy.DeltaAggregatedResources(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	open, opened := 0, 0
	for quiet := false; !quiet; {
		select {
		case n := <-control.open:
			open += n
			opened += max(n, 0)
		case <-time.After(500 * time.Millisecond):
			quiet = opened > 0
		}
	}
	if open != 1 {
		t.Errorf("%d streams are open of %d", open, opened)
	}
}

func serve(t *testing.T, s *grpc.Server) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient("passthrough:///pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
