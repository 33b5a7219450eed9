//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/snapshot"
)

// assertedCallers: a policy that names a caller at a peer believes the word of this mesh's gateways, and nobody else's.
func (s *shop) assertedCallers(t *testing.T) {
	edge := s.joinGateway(t)
	s.write(t, "bank.yaml", `
apiVersion: isthmus.dev/v1alpha1
kind: MeshPeer
metadata: {name: bank}
spec:
  trustDomain: bank.example
  knownAs: shop
  gatewayAddresses: ["203.0.113.9:15443"]
  gatewayIDs: ["spiffe://bank.example/ns/isthmus-system/sa/edge"]
  bundle:
    refresh: false
    inline: |
`+indent(newGwCA(t, "bank").pem, "      "))
	defer s.write(t, "bank.yaml", "")
	s.apply(t, "web",
		allow(`[{from: [{source: {principals: ["bank.example/ns/default/sa/buyer"]}}], to: [{operation: {paths: [/buy]}}]}]`))
	const buyer = "isthmus-caller: spiffe://bank.example/ns/default/sa/buyer"
	s.write(t, "void.yaml", "{apiVersion: v1, kind: Service, metadata: {name: void, namespace: default}, "+
		"spec: {selector: {app: web}, ports: [{name: http-void, port: 80, targetPort: 9090}]}}")
	defer s.write(t, "void.yaml", "")
	port := "8080"
	as := func(who *tls.Certificate, headers ...string) reply {
		c, err := s.secretly("alice", "10.93.0.21:"+port, meshTLS(who))
		if err != nil {
			return reply{err: err}
		}
		defer c.Close()
		return (&line{Conn: c, in: bufio.NewReader(c), host: "web", say: s.canary}).request("GET", "/buy", headers...)
	}
	within(t, 3*time.Second, "the gateway's word is believed", func() error { return s.expect(200, as(edge, buyer)) })
	s.app("web:8080").arrived()
	alice := s.svid(t, caller("alice"))
	for what, r := range map[string]reply{
		"a workload's word":                 as(alice, buyer),
		"a workload's word, said twice":     as(alice, buyer, buyer),
		"the gateway without a word":        as(edge),
		"the gateway's word for another":    as(edge, "isthmus-caller: spiffe://bank.example/ns/default/sa/other"),
		"the gateway's word for one of us":  as(edge, "isthmus-caller: spiffe://shop.example/ns/default/sa/buyer"),
		"the caller's name in other a form": as(edge, "isthmus-caller: bank.example/ns/default/sa/buyer"),
	} {
		if err := s.expect(403, r); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got := s.app("web:8080").arrived(); len(got) > 0 {
		t.Errorf("the application got %q", got)
	}
	s.wordsForPeers(t, as(edge, "isthmus-caller: spiffe://bank.example/ns/default/sa/nosy"), as(alice, buyer))
	port = "9090" // at which nobody listens
	within(t, 5*time.Second, "a workload that is down, in the words of the boundary", func() error {
		r := as(edge, buyer)
		if !strings.HasPrefix(r.body, "isthmus: the boundary of shop.example: 503 ") ||
			holds(r.body, "web", "9090", "10.93.") != nil {
			return fmt.Errorf("a peer is told %s", r)
		}
		return s.expect(503, r)
	})
	_, err := admin[adminapi.NodeRequest, adminapi.Empty](t.Context(), s, "RevokeNode",
		&adminapi.NodeRequest{Node: "edge-1"})
	need(t, err)
}

// wordsForPeers: what Envoy answers for a workload goes to a peer in the words of the boundary, and the log names the
// caller there. Who is none of our gateways, and names such a caller, is told and recorded as itself.
func (s *shop) wordsForPeers(t *testing.T, peers, ours reply) {
	const want = "isthmus: the boundary of shop.example refuses this request: no AuthorizationPolicy there allows this caller, method and path\n"
	if peers.body != want {
		t.Errorf("a peer is told %q, want %q", peers.body, want)
	}
	if !strings.HasPrefix(ours.body, "isthmus: default/web refuses this request: ") {
		t.Errorf("a caller of the mesh is told %q", ours.body)
	}
	within(t, 10*time.Second, "the refusal is on record", func() error {
		text, err := s.accessLogs("back")
		if err == nil && !strings.Contains(text,
			`"verdict":"denied","class":"policy-none","caller":"spiffe://bank.example/ns/default/sa/nosy",`+
				`"assertedBy":"spiffe://shop.example/ns/isthmus-system/sa/edge","destination":"default/web"`) {
			err = fmt.Errorf("it is not in %s", text)
		}
		if err == nil && strings.Contains(text, `"assertedBy":"spiffe://shop.example/ns/default/sa/alice"`) {
			err = errors.New("a workload's word counts")
		}
		return err
	})
}

// joinGateway registers a gateway of this mesh, and gives away its certificate.
func (s *shop) joinGateway(t *testing.T) *tls.Certificate {
	t.Helper()
	r, err := admin[adminapi.TokenRequest, adminapi.TokenResponse](t.Context(), s, "CreateToken",
		&adminapi.TokenRequest{
			Node: "edge-1", Role: snapshot.RoleGateway, Identities: []string{"isthmus-system/edge"}, TTL: time.Minute,
		})
	need(t, err)
	need(t, os.WriteFile(s.path("edge-1.token"), []byte(r.Token), 0o600))
	token, err := identity.LoadToken(s.path("edge-1.token"))
	need(t, err)
	own := svid(t, func(csr []byte) ([][]byte, []byte, error) {
		r, err := agentapi.Client{Conn: s.dialControl(t, identity.AttestTLS(token))}.Attest(t.Context(),
			&agentapi.AttestRequest{Token: token.Secret(), CSR: csr})
		if err != nil {
			return nil, nil, err
		}
		return r.Chain, r.Roots, nil
	})
	client := agentapi.Client{Conn: s.dialControl(t, identity.ControlTLS(func() *identity.SVID { return own }))}
	stream, err := client.Sync(t.Context())
	need(t, err)
	need(t, stream.Send(&agentapi.Report{Version: "test", Gateway: &snapshot.GatewayInfo{
		ServiceAccount: "edge", InnerAddress: netip.MustParseAddr("10.93.0.66"),
		OuterAddress: netip.MustParseAddr("192.0.2.66"),
	}}))
	_, err = stream.Recv() // registered
	need(t, err)
	return svid(t, func(csr []byte) ([][]byte, []byte, error) {
		r, err := client.Sign(t.Context(),
			&agentapi.SignRequest{Namespace: "isthmus-system", ServiceAccount: "edge", CSR: csr})
		if err != nil {
			return nil, nil, err
		}
		return r.Chain, r.Roots, nil
	}).TLS()
}

func (s *shop) dialControl(t *testing.T, conf *tls.Config) *grpc.ClientConn {
	t.Helper()
	return s.dialPlane(t, "control", conf)
}

func (s *shop) dialPlane(t *testing.T, plane string, conf *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+controlAddress(plane, 15012),
		grpc.WithTransportCredentials(credentials.NewTLS(conf)), grpc.WithAuthority("control"),
		grpc.WithContextDialer(func(_ context.Context, address string) (net.Conn,
			error,
		) {
			return s.dial("host", address)
		}))
	need(t, err)
	t.Cleanup(func() { conn.Close() })
	return conn
}
