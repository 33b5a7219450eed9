package meshd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/waittest"
	"isthmus.dev/isthmus/internal/wellknown"
)

// However many certificates a node was issued before it was revoked, none is good again when its name joins again.
func TestOldCertificatesNeverComeBack(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	stolen, err := p.join(p.token("node-a", snapshot.RoleNode, "default/*"))
	must(t, err)
	must(t, p.stop())
	db, err := sqlite.Open(t.Context(), p.cfg.StateFile)
	must(t, err)
	more := make([]state.Cert, 10_200)
	for i := range more {
		more[i] = state.Cert{
			Serial: fmt.Sprintf("%034x", i), SPIFFEID: "spiffe://cards.example/isthmus/node/node-a", Node: "node-a",
			Fingerprint: fmt.Sprintf("%064x", i),
			NotBefore:   time.Now(), NotAfter: time.Now().Add(48 * time.Hour),
		}
	}
	var all sync.WaitGroup
	for _, c := range more {
		all.Go(func() {
			if err := db.AddCert(t.Context(), c, ""); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	must(t, db.Close())
	p.start()
	ask[adminapi.Empty](t, p.local(), "RevokeNode", &adminapi.NodeRequest{Node: "node-a"})
	_, err = p.join(p.token("node-a", snapshot.RoleNode, "default/*"))
	must(t, err)
	thief := p.as(stolen)
	_, err = agentapi.Client{Conn: thief}.Sign(soon(t), &agentapi.SignRequest{CSR: csr(t, newKey(t))})
	wantCode(t, "the old certificate asks to sign", err, codes.PermissionDenied)
	wantCode(t, "the old certificate asks for configuration", discover(t, thief), codes.PermissionDenied)
	wantCode(t, "the old certificate opens a conversation", firstOf(agentapi.Client{Conn: thief}.Sync(soon(t))),
		codes.PermissionDenied)
}

// Of a joining that races with the revocation of its node nothing is left, whichever is first.
func TestJoiningWhileRevoked(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	local, joined := p.local(), 0
	for i := range 25 {
		name := fmt.Sprintf("node-%d", i)
		_, err := p.join(p.token(name, snapshot.RoleNode, "default/*"))
		must(t, err)
		spare := p.token(name, snapshot.RoleNode, "default/*")
		var c credential
		var refused error
		var all sync.WaitGroup
		all.Go(func() { c, refused = p.join(spare) })
		waittest.Pace(time.Duration(i) * 150 * time.Microsecond)
		ask[adminapi.RevokedNode](t, local, "RevokeNode", &adminapi.NodeRequest{Node: name})
		all.Wait()
		if refused != nil {
			continue
		}
		joined++
		_, err = agentapi.Client{Conn: p.as(c)}.Sign(soon(t), &agentapi.SignRequest{CSR: csr(t, newKey(t))})
		wantCode(t, name+", which joined meanwhile", err, codes.PermissionDenied)
	}
	t.Logf("%d of 25 had joined before", joined)
}

// A node that joins again, without having been revoked, leaves nothing to who has its former certificate; its renewals
// stand.
func TestJoiningAgainEndsTheFormerGeneration(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	old := p.agent("node-a", []string{"default/*"}, workload("shop", "shop", "10.0.0.1"))
	old.instructed("anything", func(*agentapi.Instructions) bool { return true })
	renewed, err := old.sign("", "")
	must(t, err)
	e := ads(t, p.as(renewed), nil)
	e.until("configured, with the renewed certificate", e.hasListener("outbound/default/shop"))

	again, err := p.join(p.token("node-a", snapshot.RoleNode, "default/*"))
	must(t, err)
	wantCode(t, "its conversation", received(t, "its conversation", old.end), codes.PermissionDenied)
	wantCode(t, "its configuration", received(t, "its configuration", e.end), codes.PermissionDenied)
	for what, c := range map[string]credential{"the first certificate": old.credential, "the renewed one": renewed} {
		_, err := agentapi.Client{Conn: p.as(c)}.Sign(soon(t), &agentapi.SignRequest{CSR: csr(t, newKey(t))})
		wantCode(t, what, err, codes.PermissionDenied)
	}
	_, err = p.resume(again).sign("", "")
	must(t, err)
}

// idle is a connection by TLS on which nothing is asked, and ended tells when it was closed.
func (p *plane) idle(address string, c credential, protocol string) (conn *tls.Conn, ended chan error) {
	p.t.Helper()
	cfg := p.tlsAs(&c)
	cfg.NextProtos = []string{protocol}
	conn, err := tls.Dial("tcp", address, cfg)
	must(p.t, err)
	p.t.Cleanup(func() { conn.Close() })
	ended = make(chan error, 1)
	go func() {
		if protocol == "h2" {
			io.WriteString(conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		}
		_, err := io.Copy(io.Discard, conn)
		ended <- err
	}()
	return conn, ended
}

// edge joins a gateway and returns its node's and its own certificate.
func (p *plane) edge(name string) (node *fakeAgent, gateway credential) {
	p.t.Helper()
	c, err := p.join(p.token(name, snapshot.RoleGateway, "isthmus-system/gateway"))
	must(p.t, err)
	node = p.resume(c)
	node.report(agentapi.Report{Gateway: &snapshot.GatewayInfo{
		ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr("10.0.0.8"),
		OuterAddress: netip.MustParseAddr("192.0.2.8"),
	}})
	node.instructed("anything", func(*agentapi.Instructions) bool { return true })
	gateway, err = node.sign("isthmus-system", "gateway")
	must(p.t, err)
	return node, gateway
}

// ask over one kept connection.
func getOn(t *testing.T, conn net.Conn, path string) int {
	t.Helper()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
		return 0
	}
	b := make([]byte, 4096)
	n, _ := conn.Read(b)
	var code int
	fmt.Sscanf(string(b[:n]), "HTTP/1.1 %d", &code)
	return code
}

// Revoking reaches what is open: idle connections to every port, and the port that only gateways may use; others' go
// on.
func TestRevocationReachesEveryOpenConnection(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	node, gateway := p.edge("edge")
	_, other := p.edge("edge-2")
	alice, bob := p.adminCert("alice"), p.adminCert("bob")
	_, h2 := p.idle(p.cfg.AgentAddress, node.credential, "h2")
	_, peering := p.idle(p.cfg.PeeringAddress, gateway, "http/1.1")
	_, metrics := p.idle(p.cfg.MetricsAddress, alice, "http/1.1")
	_, control := p.idle(p.cfg.AgentAddress, alice, "h2")
	_, bobs := p.idle(p.cfg.MetricsAddress, bob, "http/1.1")
	_, others := p.idle(p.cfg.PeeringAddress, other, "http/1.1")
	asking, err := tls.Dial("tcp", p.cfg.PeeringAddress, p.tlsAs(&gateway))
	must(t, err)
	if code := getOn(t, asking, wellknown.ProbePath); code != 400 { // a gateway, which does not say for whom
		t.Fatalf("before: %d", code)
	}

	ask[adminapi.Empty](t, p.local(), "RevokeNode", &adminapi.NodeRequest{Node: "edge"})
	if code := getOn(t, asking, wellknown.ProbePath); code != 403 && code != 0 {
		t.Errorf("a revoked gateway asks on its open connection: %d", code)
	}
	ask[adminapi.AdminRevokeResponse](t, p.local(), "AdminRevoke", &adminapi.AdminRevokeRequest{Name: "alice"})
	for what, ended := range map[string]chan error{
		"the node's": h2, "the gateway's at the peering port": peering,
		"the administrator's at the metrics port": metrics, "the administrator's": control,
	} {
		received(t, what, ended)
	}
	anew, err := tls.Dial("tcp", p.cfg.PeeringAddress, p.tlsAs(&gateway))
	must(t, err)
	if code := getOn(t, anew, wellknown.ProbePath); code != 0 {
		t.Errorf("a revoked gateway asks on a new connection: %d", code)
	}
	if len(bobs)+len(others) > 0 {
		t.Error("others' connections ended too")
	}
}

// Where the control plane calls a gateway, that very gateway must answer, with a certificate of its present generation.
func TestARevokedGatewayIsNotCalled(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	_, stolen := p.edge("edge")
	_, other := p.edge("edge-2")
	answers := func(c credential) error {
		leaf, err := x509.ParseCertificate(c.chain[0])
		must(t, err)
		verify := p.d.dialer.OnlyNode(t.Context(), "edge", func(tls.ConnectionState) error { return nil })
		return verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}})
	}
	must(t, answers(stolen))
	if answers(other) == nil {
		t.Error("another gateway of the same service account answers for it")
	}
	_, err := p.join(p.token("edge", snapshot.RoleGateway, "isthmus-system/gateway"))
	must(t, err)
	if answers(stolen) == nil {
		t.Error("a certificate of an earlier generation is believed")
	}
	_, renewed := p.edge("edge")
	must(t, answers(renewed))
	ask[adminapi.Empty](t, p.local(), "RevokeNode", &adminapi.NodeRequest{Node: "edge"})
	if answers(renewed) == nil {
		t.Error("a revoked one is believed")
	}
}

// Who holds a certificate that was revoked, or is of an earlier generation, takes none of the connections and calls
// that its namesake may have.
func TestOldCertificatesTakeNobodysShare(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	stolen := p.adminCert("alice")
	ask[adminapi.StatusResponse](t, p.as(stolen), "Status", &adminapi.Empty{})
	ask[adminapi.AdminRevokeResponse](t, p.local(), "AdminRevoke", &adminapi.AdminRevokeRequest{Name: "alice"})
	alice := p.as(p.adminCert("alice"))
	ask[adminapi.StatusResponse](t, alice, "Status", &adminapi.Empty{})
	thief, codesSeen := p.as(stolen), map[codes.Code]int{}
	for range 200 + 50 { // more calls than an administrator may make at once
		_, err := adminapi.Call[adminapi.TokenRequest, adminapi.TokenResponse](soon(t), thief, "CreateToken",
			&adminapi.TokenRequest{})
		codesSeen[status.Code(err)]++
	}
	if codesSeen[codes.PermissionDenied] == 0 ||
		codesSeen[codes.OK]+codesSeen[codes.InvalidArgument]+codesSeen[codes.ResourceExhausted] > 0 {
		t.Errorf("the revoked one: %v", codesSeen)
	}
	_, err := adminapi.Call[adminapi.TokenRequest, adminapi.TokenResponse](soon(t), alice, "CreateToken",
		&adminapi.TokenRequest{Node: "n", Role: snapshot.RoleNode, Identities: []string{"default/*"}})
	must(t, err)
}

// An administrator who was revoked makes nothing more, on a connection opened before.
func TestRevokedAdministrator(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	first, second, bob := p.as(p.adminCert("alice")), p.as(p.adminCert("alice")), p.as(p.adminCert("bob"))
	create := func(conn *grpc.ClientConn) error {
		_, err := adminapi.Call[adminapi.TokenRequest, adminapi.TokenResponse](soon(t), conn, "CreateToken",
			&adminapi.TokenRequest{
				Node: "n", Role: snapshot.RoleNode, Identities: []string{"*"},
				TTL: 30 * 24 * time.Hour,
			})
		return err
	}
	for _, conn := range []*grpc.ClientConn{first, second, bob} {
		must(t, create(conn))
	}
	list := ask[adminapi.AdminListResponse](t, p.local(), "AdminList", &adminapi.Empty{}).Admins
	if len(list) != 3 || list[0].Name != "alice" || list[2].Name != "bob" || len(list[0].ID) != 16 ||
		!strings.HasPrefix(list[0].Serial, "40"+list[0].ID) || time.Until(list[0].NotAfter) > 8*time.Hour {
		t.Fatalf("listed: %+v", list)
	}
	ask[adminapi.AdminRevokeResponse](t, p.local(), "AdminRevoke", &adminapi.AdminRevokeRequest{ID: list[0].ID})
	wantCode(t, "one certificate is revoked", create(first), codes.PermissionDenied)
	must(t, create(second))
	got := ask[adminapi.AdminRevokeResponse](t, p.local(), "AdminRevoke", &adminapi.AdminRevokeRequest{Name: "alice"})
	if len(got.Admins) != 1 || got.Admins[0].ID != list[1].ID {
		t.Errorf("revoked: %+v", got)
	}
	wantCode(t, "all are revoked", create(second), codes.PermissionDenied)
	must(t, create(bob))
	_, err := adminapi.Call[adminapi.AdminRevokeRequest, adminapi.AdminRevokeResponse](soon(t), p.local(),
		"AdminRevoke", &adminapi.AdminRevokeRequest{Name: "alice"})
	wantCode(t, "there is nothing left to revoke", err, codes.NotFound)
	must(t, p.stop())
	p.start()
	wantCode(t, "after a restart", create(second), codes.PermissionDenied)
	// Who made which token is on record, and all of one maker's can be cancelled.
	cancelled := ask[adminapi.TokenCancelResponse](t, p.local(), "TokenCancel",
		&adminapi.TokenCancelRequest{MadeBy: "administrator alice"})
	if cancelled.Cancelled != 3 {
		t.Errorf("cancelled %d of alice's tokens, want 3", cancelled.Cancelled)
	}
	var by []string
	for _, tok := range ask[adminapi.TokenListResponse](t, p.local(), "TokenList", &adminapi.Empty{}).Tokens {
		by = append(by, tok.MadeBy+" "+tok.State)
	}
	same(t, "who made the tokens", by, []string{
		"administrator alice cancelled", "administrator alice cancelled", "administrator bob open",
		"administrator alice cancelled", "administrator bob open",
	})
}

// Agents answer administrators too, and hear at once of one who was revoked; also after a restart, also those who come
// later.
func TestAgentsHearOfRevokedAdministrators(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	a := p.agent("node-a", []string{"default/*"}, workload("shop", "shop", "10.0.0.1"))
	a.instructed("nobody is revoked", func(in *agentapi.Instructions) bool { return len(in.RevokedAdmins) == 0 })
	p.adminCert("alice")
	p.adminCert("bob")
	serial := ask[adminapi.AdminListResponse](t, p.local(), "AdminList", &adminapi.Empty{}).Admins[0].Serial
	ask[adminapi.AdminRevokeResponse](t, p.local(), "AdminRevoke", &adminapi.AdminRevokeRequest{Name: "alice"})
	told := func(in *agentapi.Instructions) bool { return slices.Equal(in.RevokedAdmins, []string{serial}) }
	a.instructed("alice is", told)
	must(t, p.stop())
	p.start()
	b := p.resume(a.credential)
	b.report(agentapi.Report{})
	b.instructed("alice is still", told)
}

// A certificate is good until its end, not until its connection's.
func TestCertificateIsJudgedByItsEnd(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	c := credential{key: newKey(t)}
	resp := ask[agentapi.SignResponse](t, p.local(), "AdminCert",
		&adminapi.AdminCertRequest{Name: "alice", CSR: csr(t, c.key), TTL: 3 * time.Second})
	c.chain, c.roots = resp.Chain, resp.Roots
	conn := p.as(c)
	_, ended := p.idle(p.cfg.AgentAddress, c, "h2")
	ask[adminapi.StatusResponse](t, conn, "Status", &adminapi.Empty{})
	received(t, "an idle connection", ended)
	_, err := adminapi.Call[adminapi.Empty, adminapi.StatusResponse](soon(t), conn, "Status", &adminapi.Empty{})
	if err == nil {
		t.Error("a call by a certificate that has ended")
	}
	_, err = adminapi.Call[adminapi.AdminCertRequest, agentapi.SignResponse](soon(t), p.local(), "AdminCert",
		&adminapi.AdminCertRequest{Name: "alice", CSR: csr(t, c.key), TTL: 25 * time.Hour})
	wantCode(t, "a longer life than may be", err, codes.InvalidArgument)
}

// A node's conversation and its discovery end with the certificate that opened them; its renewed one goes on.
func TestStreamsEndWithTheirCertificate(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	long, err := p.join(p.token("node-a", snapshot.RoleNode, "default/*"))
	must(t, err)
	must(t, p.stop())
	short := p.signNode("node-a", 5*time.Second)
	p.start()
	a := p.resume(short)
	a.report(agentapi.Report{Workloads: []snapshot.Workload{workload("shop", "shop", "10.0.0.1")}})
	a.instructed("anything", func(*agentapi.Instructions) bool { return true })
	e := ads(t, a.conn, nil)
	e.until("configured", e.hasListener("outbound/default/shop"))
	wantCode(t, "its conversation", received(t, "its conversation", a.end), codes.Unauthenticated)
	wantCode(t, "its configuration", received(t, "its configuration", e.end), codes.Unauthenticated)
	_, err = p.resume(long).sign("default", "shop")
	must(t, err)
}

// signNode makes a certificate of a node that lives shorter than its usual ones. The control plane must not run
// meanwhile.
func (p *plane) signNode(name string, ttl time.Duration) credential {
	p.t.Helper()
	db, err := sqlite.Open(p.t.Context(), p.cfg.StateFile)
	must(p.t, err)
	defer db.Close()
	authority, err := ca.New(p.t.Context(),
		ca.Config{TrustDomain: cards(p.t), Store: db, KeyFile: p.cfg.KeyFile, Log: slog.New(slog.DiscardHandler)})
	must(p.t, err)
	n, err := db.Node(p.t.Context(), name)
	must(p.t, err)
	id, err := spiffe.Node(cards(p.t), name)
	must(p.t, err)
	c := credential{key: newKey(p.t), roots: authority.Roots()}
	c.chain, err = authority.Sign(p.t.Context(), csr(p.t, c.key), id, ttl,
		ca.Holder{Node: name, Generation: n.Generation})
	must(p.t, err)
	return c
}

// Nobody acts by a root that was withdrawn, on a connection opened before either.
func TestWithdrawnRootEndsConnections(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	c := p.adminCert("alice")
	conn := p.as(c)
	_, ended := p.idle(p.cfg.AgentAddress, c, "h2")
	ask[adminapi.StatusResponse](t, conn, "Status", &adminapi.Empty{})
	must(t, p.caRotate(adminapi.CARotateRequest{}))
	p.waitsFor("activated",
		"administrator alice: has credentials under the old root: make new ones (isthmus admin cert) before they end")
	ask[adminapi.StatusResponse](t, conn, "Status", &adminapi.Empty{})
	must(t, p.caRotate(adminapi.CARotateRequest{Force: true}))
	p.waitsFor("done")
	received(t, "an idle connection", ended)
	if _, err := adminapi.Call[adminapi.Empty, adminapi.StatusResponse](soon(t), conn, "Status",
		&adminapi.Empty{}); err == nil {
		t.Error("a call under a root that was withdrawn")
	}
	// What is left under it holds up no later rotation.
	must(t, p.caRotate(adminapi.CARotateRequest{}))
	p.waitsFor("done")
	if passed := p.caStatus().Rotation.Passed; len(passed) > 0 {
		t.Errorf("left behind: %v", passed)
	}
}

// Tokens are listed without their secrets, and cancelled; a revoked node's are.
func TestTokensAreListedAndCancelled(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	open, shut, node := p.token("a", snapshot.RoleNode,
		"default/x"), p.token("b", snapshot.RoleNode, "default/*"), p.token("c", snapshot.RoleNode, "default/*")
	_, err := p.join(node)
	must(t, err)
	spare := p.token("c", snapshot.RoleNode, "default/*")
	list := func() map[string]adminapi.TokenInfo {
		out := map[string]adminapi.TokenInfo{}
		for i, tok := range ask[adminapi.TokenListResponse](t, p.local(), "TokenList", &adminapi.Empty{}).Tokens {
			out[fmt.Sprint(i)] = tok
		}
		return out
	}
	before := list()
	cancel := func(id string) error {
		_, err := adminapi.Call[adminapi.TokenCancelRequest, adminapi.TokenCancelResponse](soon(t), p.local(),
			"TokenCancel", &adminapi.TokenCancelRequest{ID: id})
		return err
	}
	must(t, cancel(before["1"].ID))
	wantCode(t, "one that was used", cancel(before["2"].ID), codes.FailedPrecondition)
	wantCode(t, "one that is not there", cancel("0000000000000000"), codes.NotFound)
	ask[adminapi.Empty](t, p.local(), "RevokeNode", &adminapi.NodeRequest{Node: "c"})
	var states []string
	for i := range 4 {
		tok := list()[fmt.Sprint(i)]
		states = append(states, tok.Node+" "+tok.State+" "+strings.Join(tok.Grant.Identities, ","))
	}
	same(t, "tokens", states,
		[]string{"a open default/x", "b cancelled default/*", "c used default/*", "c cancelled default/*"})
	for what, token := range map[string]string{"a cancelled one": shut, "a revoked node's": spare} {
		if _, err := p.join(token); err == nil {
			t.Errorf("%s was good", what)
		}
	}
	_, err = p.join(open)
	must(t, err)
}
