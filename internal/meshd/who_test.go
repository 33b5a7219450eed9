package meshd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/waittest"
)

// callers are one of each kind.
type callers struct {
	plane                         *plane
	agent                         *fakeAgent
	node, workload, admin, abroad credential
}

func newCallers(t *testing.T) *callers {
	t.Helper()
	c := &callers{plane: startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})}
	c.agent = c.plane.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	c.agent.instructed("anything", func(*agentapi.Instructions) bool { return true })
	c.node = c.agent.credential
	var err error
	c.workload, err = c.agent.sign("default", "shop")
	must(t, err)
	c.admin = c.plane.adminCert("alice")
	twin := startPlane(t, map[string]string{"mesh.yaml": meshYAML}) // the same names, another root
	c.abroad = twin.agent("node-a", []string{"default/shop"}).credential
	return c
}

func (p *plane) adminCert(name string) credential {
	p.t.Helper()
	c := credential{key: newKey(p.t)}
	resp := ask[agentapi.SignResponse](p.t, p.local(), "AdminCert",
		&adminapi.AdminCertRequest{Name: name, CSR: csr(p.t, c.key)})
	c.chain, c.roots = resp.Chain, resp.Roots
	return c
}

func (c *callers) conn(who *credential) *grpc.ClientConn {
	cfg := c.plane.tlsAs(nil)
	if who != nil {
		cfg.GetClientCertificate = who.tls
	}
	return c.plane.conn(c.plane.cfg.AgentAddress, credentials.NewTLS(cfg))
}

func TestWhoMayCallWhat(t *testing.T) {
	t.Parallel()
	c := newCallers(t)
	admin := "/" + adminapi.Service + "/"
	for who, try := range map[string]struct {
		shows          *credential
		agents, admins codes.Code // what the agents' methods, and the administrators', answer
	}{
		"nobody":       {nil, codes.Unauthenticated, codes.Unauthenticated},
		"foreign node": {&c.abroad, codes.Unavailable, codes.Unavailable}, // no handshake
		"node":         {&c.node, codes.OK, codes.PermissionDenied},
		"workload":     {&c.workload, codes.PermissionDenied, codes.PermissionDenied},
		"admin":        {&c.admin, codes.PermissionDenied, codes.OK},
	} {
		conn := c.conn(try.shows)
		key := newKey(t)
		_, err := agentapi.Client{Conn: conn}.Sign(soon(t), &agentapi.SignRequest{CSR: csr(t, key)})
		wantCode(t, who+" asks to sign", err, try.agents)
		if try.agents != codes.OK {
			wantCode(t, who+" opens a conversation", firstOf(agentapi.Client{Conn: conn}.Sync(soon(t))), try.agents)
			wantCode(t, who+" asks for configuration", discover(t, conn), try.agents)
		}
		for _, m := range adminapi.Desc.Streams {
			want := try.admins
			if m.StreamName == "AdminCert" && want != codes.Unavailable {
				want = codes.PermissionDenied // none makes another: it takes the socket
			}
			err := conn.Invoke(soon(t), admin+m.StreamName, &adminapi.Empty{}, &map[string]any{},
				grpc.CallContentSubtype("json"))
			if want == codes.OK {
				if c := status.Code(err); c == codes.Unauthenticated || c == codes.PermissionDenied ||
					c == codes.Unimplemented {
					t.Errorf("%s calls %s: %v", who, m.StreamName, err)
				}
				continue
			}
			wantCode(t, who+" calls "+m.StreamName, err, want)
		}
		_, err = agentapi.Client{Conn: conn}.Attest(soon(t),
			&agentapi.AttestRequest{Token: "isthmus-join-v1.AAAA", CSR: csr(t, key)})
		if want := map[bool]codes.Code{
			true:  codes.Unavailable,
			false: codes.PermissionDenied,
		}[who == "foreign node"]; status.Code(err) != want {
			t.Errorf("%s joins without a token: %v", who, err)
		}
	}
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: %s (%v), want %s", what, got, err, want)
	}
}

// firstOf is the error of a stream that was just opened, or of its first answer.
func firstOf[S interface{ Recv() (R, error) }, R any](s S, err error) error {
	if err != nil {
		return err
	}
	_, err = s.Recv()
	return err
}

func discover(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(soon(t))
	return firstOf(s, err)
}

// Of a hundred that race with one token one wins; who tries on and on is held back without a write to the disk.
func TestOneTokenManyHands(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	token := p.token("node-a", snapshot.RoleNode, "default/*")
	attest := func(conn *grpc.ClientConn, key *ecdsa.PrivateKey) codes.Code {
		_, err := agentapi.Client{Conn: conn}.Attest(soon(t), &agentapi.AttestRequest{Token: token, CSR: csr(t, key)})
		return status.Code(err)
	}
	conn, key := p.conn(p.cfg.AgentAddress, credentials.NewTLS(p.tlsAs(nil))), newKey(t)
	var mu sync.Mutex // guards got
	got := map[codes.Code]int{}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			code := attest(conn, key)
			mu.Lock()
			defer mu.Unlock()
			got[code]++
		})
	}
	all.Wait()
	if got[codes.OK] != 1 || got[codes.PermissionDenied] != 99 {
		t.Errorf("of a hundred: %v", got)
	}
	held := false
	for i := 0; i < 3*200 && !held; i++ {
		held = attest(conn, key) == codes.ResourceExhausted
	}
	if !held {
		t.Error("it may try for ever")
	}
}

// What a node may have signed hangs on its token and on what is registered on it, whatever it asks for.
func TestSignForOneselfAlone(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"),
		workload("thief", "payments", "10.0.0.9"))
	b := p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	c := p.agent("node-c", []string{"default/*"})
	for _, x := range []*fakeAgent{a, b, c} {
		x.instructed("anything", func(*agentapi.Instructions) bool { return true })
	}
	for what, try := range map[string]struct {
		agent              *fakeAgent
		namespace, account string
		want               codes.Code
	}{
		"its own workload":                    {a, "default", "shop", codes.OK},
		"a workload that it was not granted":  {a, "default", "payments", codes.PermissionDenied},
		"one granted, but on another node":    {c, "default", "payments", codes.PermissionDenied},
		"one granted, but on no node":         {c, "default", "nobody", codes.PermissionDenied},
		"a gateway":                           {c, "isthmus-system", "gateway", codes.PermissionDenied},
		"a path in a name":                    {a, "default", "shop/../payments", codes.PermissionDenied},
		"a namespace without service account": {a, "default", "", codes.PermissionDenied},
		"a service account without namespace": {a, "", "shop", codes.PermissionDenied},
	} {
		_, err := try.agent.sign(try.namespace, try.account)
		wantCode(t, what, err, try.want)
	}
	eventually(t, "it is found", func() bool { return p.found("ISM0013") != "" })
	contains(t, "the finding", p.found("ISM0013"), "workload default/thief",
		"node-a may not host service account default/payments",
		"correct serviceAccount, or empty the node's stateDir and start it with another token",
		"isthmus token create --node node-a --identity default/payments")
	for _, px := range p.status().Proxies {
		if strings.Contains(strings.Join(px.Workloads, " "), "thief") {
			t.Errorf("the workload that was not granted is registered: %v", px.Workloads)
		}
	}
}

// A certificate says what was decided here, not what the request claims.
func TestRequestClaimsAreIgnored(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	a.instructed("anything", func(*agentapi.Instructions) bool { return true })
	key := newKey(t)
	claim, err := url.Parse("spiffe://cards.example/isthmus/admin/root")
	must(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "control"}, URIs: []*url.URL{claim},
		DNSNames: []string{"payments.default.svc.cluster.local"}, IPAddresses: []net.IP{{10, 0, 0, 2}},
	}, key)
	must(t, err)
	resp, err := agentapi.Client{Conn: a.conn}.Sign(soon(t),
		&agentapi.SignRequest{Namespace: "default", ServiceAccount: "shop", CSR: der})
	must(t, err)
	leaf, err := x509.ParseCertificate(resp.Chain[0])
	must(t, err)
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://cards.example/ns/default/sa/shop" ||
		len(leaf.DNSNames)+len(leaf.IPAddresses) > 0 || leaf.IsCA {
		t.Errorf("URIs %v, DNS %v, IPs %v, CA %t", leaf.URIs, leaf.DNSNames, leaf.IPAddresses, leaf.IsCA)
	}
}

// A proxy gets the configuration of the node that its certificate names, whoever it says it is (ads says node-b).
func TestConfigurationByCertificate(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	envoyA := ads(t, a.conn, nil)
	envoyA.until("its own", envoyA.hasListener("inbound/default/shop"))
	for envoyA.take(200*time.Millisecond) != nil {
	}
	for name := range envoyA.has["type.googleapis.com/envoy.config.listener.v3.Listener"] {
		if strings.Contains(name, "payments") {
			t.Errorf("node-a was sent %s of node-b", name)
		}
	}
	envoyA.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl:                "type.googleapis.com/envoy.config.listener.v3.Listener",
		ResourceNamesSubscribe: []string{"inbound/default/payments"},
	})
	if r := envoyA.take(patience); r == nil || len(r.Resources) > 0 || len(r.RemovedResources) != 1 {
		t.Errorf("asked by name, it said %v", r)
	}
}

func TestMetricsAndPeeringNeedTheirCertificates(t *testing.T) {
	t.Parallel()
	c := newCallers(t)
	get := func(address, path string, who *credential) (int, string) {
		cfg := c.plane.tlsAs(nil)
		if who != nil {
			cfg.GetClientCertificate = who.tls
		}
		client := http.Client{
			Timeout:   patience,
			Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true},
		}
		resp, err := client.Get("https://" + address + path)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	for who, try := range map[string]struct {
		shows   *credential
		metrics int
	}{
		"nobody":   {nil, 403},
		"foreign":  {&c.abroad, 0},
		"node":     {&c.node, 403},
		"workload": {&c.workload, 403},
		"admin":    {&c.admin, 200},
	} {
		if code, body := get(c.plane.cfg.MetricsAddress, "/metrics", try.shows); code != try.metrics ||
			(code == 200) != strings.Contains(body, "isthmus_proxy_connected") {
			t.Errorf("metrics for %s: %d %.100q", who, code, body)
		}
		for _, path := range []string{"/v1/bundle", "/v1/catalogue", "/v1/peering", "/"} {
			// hung up on, whatever it asks
			if code, body := get(c.plane.cfg.PeeringAddress, path, try.shows); code != 0 {
				t.Errorf("peering %s for %s: %d %.100q", path, who, code, body)
			}
		}
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	c := newCallers(t)
	for _, addr := range []string{c.plane.cfg.AgentAddress, c.plane.cfg.MetricsAddress, c.plane.cfg.PeeringAddress} {
		_, err := tls.Dial("tcp", addr, &tls.Config{
			InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12,
			NextProtos: []string{"h2", "http/1.1"},
		})
		if err == nil || !strings.Contains(err.Error(), "protocol version") {
			t.Errorf("TLS 1.2 to %s: %v", addr, err)
		}
		conn, err := net.Dial("tcp", addr)
		must(t, err)
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		conn.SetDeadline(time.Now().Add(patience))
		if answer, _ := io.ReadAll(conn); bytes.Contains(answer, []byte("200 OK")) {
			t.Errorf("plaintext to %s: %.100q", addr, answer)
		}
		conn.Close()
	}
}

// The tickets of TLS would let a session outlive a revocation.
func TestNoSessionTickets(t *testing.T) {
	t.Parallel()
	c := newCallers(t)
	cfg := c.plane.tlsAs(&c.admin)
	cache := &counting{}
	cfg.ClientSessionCache = cache
	client := http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: cfg}}
	resp, err := client.Get("https://" + c.plane.cfg.MetricsAddress + "/")
	must(t, err)
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if cache.puts > 0 {
		t.Errorf("%d session tickets were given out", cache.puts)
	}
}

type counting struct{ puts int }

func (*counting) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (c *counting) Put(string, *tls.ClientSessionState)      { c.puts++ }

// A revoked node is shut out at once: what it has open ends, and it gets nothing new.
func TestRevokedNode(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	b := p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	envoyA, envoyB := ads(t, a.conn, nil), ads(t, b.conn, nil)
	envoyA.until("configured", envoyA.hasListener("outbound/default/shop"))
	envoyB.until("configured", envoyB.hasListener("inbound/default/payments"))
	spare := p.token("node-a", snapshot.RoleNode, "default/shop")

	ask[adminapi.Empty](t, p.local(), "RevokeNode", &adminapi.NodeRequest{Node: "node-a"})
	wantCode(t, "its conversation", received(t, "its conversation", a.end), codes.PermissionDenied)
	wantCode(t, "its configuration", received(t, "its configuration", envoyA.end), codes.PermissionDenied)
	_, err := a.sign("default", "shop")
	wantCode(t, "a certificate for its workload", err, codes.PermissionDenied)
	_, err = a.sign("", "")
	wantCode(t, "its own certificate", err, codes.PermissionDenied)
	wantCode(t, "configuration anew", discover(t, a.conn), codes.PermissionDenied)
	wantCode(t, "a conversation anew", firstOf(agentapi.Client{Conn: a.conn}.Sync(soon(t))), codes.PermissionDenied)
	if _, err := p.join(spare); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a token made before: %v", err)
	}
	eventually(t, "it is gone from the mesh", func() bool { return len(p.status().Proxies) == 1 })
	if len(envoyB.end) > 0 {
		t.Error("another node's stream ended too")
	}
	_, err = adminapi.Call[adminapi.NodeRequest, adminapi.Empty](soon(t), p.local(), "RevokeNode",
		&adminapi.NodeRequest{Node: "node-z"})
	wantCode(t, "a node that is not there", err, codes.NotFound)

	again := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	back := ads(t, again.conn, nil)
	back.until("joined with a new token", back.hasListener("outbound/default/shop"))
	// What was stolen before stays worthless.
	thief := p.as(a.credential)
	_, err = agentapi.Client{Conn: thief}.Sign(soon(t),
		&agentapi.SignRequest{Namespace: "default", ServiceAccount: "shop", CSR: csr(t, newKey(t))})
	wantCode(t, "the old certificate asks to sign", err, codes.PermissionDenied)
	wantCode(t, "the old certificate asks for configuration", discover(t, thief), codes.PermissionDenied)
	_, err = again.sign("default", "shop")
	must(t, err)
}

// An agent that does not read is revoked like any other, and holds up nobody meanwhile.
func TestAgentThatDoesNotRead(t *testing.T) {
	t.Parallel()
	var names strings.Builder // instructions too long for a window that nobody empties
	for i := range 400 {
		fmt.Fprintf(&names, "---\n"+`apiVersion: v1
kind: Service
metadata: {name: s%d-%s, namespace: default}
spec: {ports: [{name: http, port: 80}], selector: {app: payments}}
`, i, strings.Repeat("x", 40))
	}
	open := strings.NewReplacer("selector: {matchLabels: {app: payments}}\n  rules:", "rules:").Replace(shopYAML)
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "open.yaml": open, "many.yaml": names.String()})
	b := p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	b.instructed("anything", func(*agentapi.Instructions) bool { return true })
	c, err := p.join(p.token("node-a", snapshot.RoleNode, "default/shop"))
	must(t, err)
	mute, err := agentapi.Client{Conn: p.as(c)}.Sync(t.Context())
	must(t, err)
	must(t, mute.Send(&agentapi.Report{Workloads: []snapshot.Workload{workload("shop", "shop", "10.0.0.1")}}))
	eventually(t, "it is registered", func() bool { return len(p.status().Proxies) == 2 })
	for i := range 5 {
		p.write("shop.yaml", strings.ReplaceAll(shopYAML, "payments", fmt.Sprintf("new-%d", i)))
		waittest.Pace(20 * time.Millisecond)
	}
	p.write("shop.yaml", meshYAML[strings.Index(meshYAML, "---\n"):]+"---\n"+strings.NewReplacer("payments", "last",
		"sa/shop", "sa/payments").Replace(shopYAML))
	p.agent("node-c", []string{"default/last"}, workload("last", "last", "10.0.0.3"))
	b.instructed("the other agent hears of the last change", func(in *agentapi.Instructions) bool {
		return len(in.DNS["default/payments"].Hosts["last.default.svc.cluster.local"]) == 1
	})
	ask[adminapi.Empty](t, p.local(), "RevokeNode", &adminapi.NodeRequest{Node: "node-a"})
	eventually(t, "it is gone", func() bool {
		return len(p.status().Proxies) == 2 && !strings.Contains(fmt.Sprint(p.status().Proxies), "node-a")
	})
	ended := make(chan error, 1)
	go func() {
		for err := error(nil); ; {
			if _, err = mute.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	wantCode(t, "its end, once it reads", received(t, "its end", ended), codes.PermissionDenied)
}

// The newest conversation of an agent counts.
func TestAgentComesAgain(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	old := p.agent("node-a", []string{"default/*"}, workload("shop", "shop", "10.0.0.1"))
	old.instructed("anything", func(*agentapi.Instructions) bool { return true })
	young := p.resume(old.credential)
	young.report(agentapi.Report{Workloads: []snapshot.Workload{workload("other", "other", "10.0.0.3")}})
	wantCode(t, "the former conversation", received(t, "the former conversation", old.end), codes.Aborted)
	young.instructed("its new workload",
		func(in *agentapi.Instructions) bool { _, ok := in.DNS["default/other"]; return ok && len(in.DNS) == 1 })
}

// However often agents connect while the configuration changes, none is left with what was before.
func TestInstructionsAreNotLost(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	for i := range 20 {
		name := fmt.Sprintf("shop-%d", i)
		a := p.agent(fmt.Sprintf("node-%d", i), []string{"default/shop"},
			workload(name, "shop", fmt.Sprintf("10.0.1.%d", i+1)))
		a.instructed(name+" is told its names",
			func(in *agentapi.Instructions) bool { _, ok := in.DNS["default/"+name]; return ok })
	}
}

func TestForeignReports(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	long := strings.Repeat("x", 1<<20)
	ws := []snapshot.Workload{workload("good", "good", "10.0.0.1")}
	for _, bend := range []func(w *snapshot.Workload){
		func(w *snapshot.Workload) { w.Name = "bad|name\n" },
		func(w *snapshot.Workload) { w.Name = long },
		func(w *snapshot.Workload) { w.Namespace = "../default" },
		func(w *snapshot.Workload) { w.ServiceAccount = "*" },
		func(w *snapshot.Workload) { w.Addresses = append(w.Addresses, netip.Addr{}) },
		func(w *snapshot.Workload) { w.Addresses = []netip.Addr{netip.IPv4Unspecified()} },
		func(w *snapshot.Workload) { w.Addresses = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} },
		func(w *snapshot.Workload) { w.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")} },
		func(w *snapshot.Workload) { w.Addresses = []netip.Addr{netip.MustParseAddr("240.240.0.1")} },
		func(w *snapshot.Workload) { w.Addresses = []netip.Addr{netip.MustParseAddr("64:ff9b::7f00:1")} },
		func(w *snapshot.Workload) { w.Ports = []snapshot.WorkloadPort{{Number: 15001}} },
		func(w *snapshot.Workload) { w.Labels = map[string]string{"app": "payments\x00"} },
		func(w *snapshot.Workload) { w.Ports = []snapshot.WorkloadPort{{Number: 0}} },
		func(w *snapshot.Workload) { w.Ports = make([]snapshot.WorkloadPort, 70000) },
		func(w *snapshot.Workload) { w.Netns = "/run/netns/../../etc/passwd" },
		func(w *snapshot.Workload) { w.Netns = "relative" },
	} {
		w := workload("bad", "good", "10.0.0.2")
		bend(&w)
		ws = append(ws, w)
	}
	ws = append(ws, workload("good", "good", "10.0.0.7")) // twice
	a := p.agent("node-a", []string{"*"}, ws...)
	a.instructed("the good one", func(in *agentapi.Instructions) bool {
		_, ok := in.DNS["default/good"]
		return ok &&
			len(in.DNS) == 1
	})
	eventually(t, "a finding", func() bool { return p.found("ISM0014") != "" })
	n := 0
	for _, f := range p.status().Findings {
		if len(f.String()) > 4096 {
			t.Errorf("a finding of %d bytes", len(f.String()))
		}
		if f.Code == "ISM0014" {
			n++
		}
	}
	if n != len(ws)-1 {
		t.Errorf("%d findings about %d bad workloads", n, len(ws)-1)
	}

	big := agentapi.Report{
		Version: long, Certs: make([]agentapi.CertState, 5000),
		Peers: map[string]agentapi.PeerCounts{"invented": {Requests: 1}},
	}
	big.Envoy.Version = long
	a.report(big)
	eventually(t, "the report is taken in", func() bool {
		s := p.status().Proxies[0]
		return len(s.Envoy.Version) == finding.MaxText && len(s.Certs) <= grant.MaxWorkloads+1 && len(s.Workloads) == 0
	})
	a.report(agentapi.Report{Workloads: make([]snapshot.Workload, grant.MaxWorkloads+1)})
	wantCode(t, "too many workloads", received(t, "too many workloads", a.end), codes.ResourceExhausted)
}
