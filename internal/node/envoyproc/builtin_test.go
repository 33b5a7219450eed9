package envoyproc

import (
	"log/slog"
	"net"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	extensionv3 "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/envoy"
)

// An Envoy that asks its agent for a built-in filter is given that of this program, and of another program none.
func TestBuiltinFilters(t *testing.T) {
	s := grpc.NewServer()
	extensionv3.RegisterExtensionConfigDiscoveryServiceServer(s, &BuiltinFilters{Log: slog.New(slog.DiscardHandler)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ask := func(name string) (*discoveryv3.DiscoveryResponse, error) {
		stream, err := extensionv3.NewExtensionConfigDiscoveryServiceClient(conn).StreamExtensionConfigs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []*discoveryv3.DiscoveryRequest{
			{ResponseNonce: "of before"}, {ResourceNames: []string{name}},
		} {
			if err := stream.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		return stream.Recv()
	}
	for _, r := range envoy.Builtin() {
		if r.Type != envoy.ExtensionType {
			continue
		}
		got, err := ask(r.Name)
		if err != nil || len(got.Resources) != 1 || string(got.Resources[0].Value) != string(r.Body) {
			t.Errorf("asked for %s: %v, %v", r.Name, got, err)
		}
	}
	for _, name := range []string{"http/to-envoys", "http/to-envoys@another", ""} {
		if got, err := ask(name); status.Code(err) != codes.NotFound {
			t.Errorf("asked for %q: %v, %v, want none", name, got, err)
		}
	}
}
