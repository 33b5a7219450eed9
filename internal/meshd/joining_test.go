package meshd

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/waittest"
)

// Whoever opens calls and says nothing keeps nobody from joining: strangers from many addresses, or a stolen node with
// many identities.
func TestNobodyIsKeptFromJoining(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	genuine := p.token("node-b", snapshot.RoleNode, "default/web")
	var hosted []snapshot.Workload
	for i := range 9 {
		hosted = append(hosted, workload(fmt.Sprint("w", i), fmt.Sprint("w", i), fmt.Sprint("10.1.0.", i+1)))
	}
	stolen := p.agent("node-a", []string{"default/*"}, hosted...)
	stolen.instructed("its DNS", func(i *agentapi.Instructions) bool { return len(i.DNS) > 0 })
	silent := func(conn *grpc.ClientConn) {
		for range 150 {
			both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
			_, err := conn.NewStream(t.Context(), both, "/"+agentapi.Service+"/Attest")
			must(t, err)
		}
	}
	for i, w := range hosted {
		cert, err := stolen.sign(w.Namespace, w.ServiceAccount)
		must(t, err)
		silent(p.as(cert))
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(i+2))}}
		stranger, err := grpc.NewClient("passthrough:"+p.cfg.AgentAddress,
			grpc.WithTransportCredentials(credentials.NewTLS(p.tlsAs(nil))),
			grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) {
				return from.DialContext(ctx, "tcp", a)
			}))
		must(t, err)
		t.Cleanup(func() { stranger.Close() })
		silent(stranger)
	}
	waittest.Pace(time.Second) // all these calls have arrived
	if _, err := p.join(genuine); err != nil {
		t.Error(err)
	}
}
