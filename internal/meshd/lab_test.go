package meshd

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/logtest"
	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state/statetest"
	"isthmus.dev/isthmus/internal/waittest"
)

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

const meshYAML = `apiVersion: isthmus.dev/v1alpha1
kind: Mesh
metadata: {name: cards}
spec: {trustDomain: cards.example, certificateTTL: 5m}
---
apiVersion: v1
kind: Namespace
metadata: {name: default}
`

// shopYAML is a service, and who may call it.
const shopYAML = `apiVersion: v1
kind: Service
metadata: {name: payments, namespace: default}
spec:
  selector: {app: payments}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payments, namespace: default}
spec:
  selector: {matchLabels: {app: payments}}
  rules:
    - from: [{source: {principals: ["cards.example/ns/default/sa/shop"]}}]
`

// plane is a control plane in this process, on loopback.
type plane struct {
	t     *testing.T
	cfg   config.Control
	logs  *logtest.Buffer
	plant func(*Daemon) // changes it before it runs
	d     *Daemon       // that runs
	stop  func() error  // waits; what it returned

	socket *grpc.ClientConn // what local returns, until the next start
}

// newPlane sets one up without starting it.
func newPlane(t *testing.T, files map[string]string) *plane {
	t.Helper()
	dir := statetest.Dir(t)
	p := &plane{t: t, logs: &logtest.Buffer{}, cfg: config.Control{
		ConfigDir: filepath.Join(dir, "config"), StateFile: filepath.Join(dir, "state.db"),
		ConfigCopies: filepath.Join(dir, "copies"), KeyFile: filepath.Join(dir, "state.key"),
		Socket: filepath.Join(dir, "s"), AgentAddress: freePort(t), PeeringAddress: freePort(t),
		MetricsAddress: freePort(t), HealthAddress: freePort(t),
	}}
	for name, text := range files {
		p.write(name, text)
	}
	return p
}

// startPlane sets one up and waits until it is ready.
func startPlane(t *testing.T, files map[string]string) *plane {
	t.Helper()
	p := newPlane(t, files)
	p.start()
	return p
}

func (p *plane) start() {
	p.t.Helper()
	p.socket = nil // a new one does not wait for its turn to connect again
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	p.d = newDaemon(p.cfg, slog.New(slog.NewTextHandler(p.logs, nil)))
	if p.plant != nil {
		p.plant(p.d)
	}
	go func() { ended <- p.d.run(ctx) }()
	p.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(patience):
			p.t.Error("the control plane did not stop")
			return nil
		}
	})
	p.t.Cleanup(func() { p.stop() })
	eventually(p.t, "ready", func() bool {
		select {
		case err := <-ended:
			ended <- err
			p.t.Fatalf("the control plane ended: %v", err)
		default:
		}
		resp, err := http.Get("http://" + p.cfg.HealthAddress + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// refusal is why it does not start.
func (p *plane) refusal() string {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	err := Run(ctx, p.cfg, slog.New(slog.NewTextHandler(p.logs, nil)))
	if err == nil {
		p.t.Fatal("the control plane started")
	}
	return err.Error()
}

// write puts a file into the configuration folder as an editor does: all of it at once.
func (p *plane) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.cfg.ConfigDir, name)
	must(p.t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(p.t, os.WriteFile(path+".new~", []byte(text), 0o644))
	must(p.t, os.Rename(path+".new~", path))
}

// local is the administration over the Unix socket.
func (p *plane) local() *grpc.ClientConn {
	p.t.Helper()
	if p.socket == nil {
		p.socket = p.conn("unix:"+p.cfg.Socket, insecure.NewCredentials())
	}
	return p.socket
}

func (p *plane) conn(target string, creds credentials.TransportCredentials) *grpc.ClientConn {
	p.t.Helper()
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	must(p.t, err)
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

func (p *plane) status() *adminapi.StatusResponse {
	p.t.Helper()
	return ask[adminapi.StatusResponse](p.t, p.local(), "Status", &adminapi.Empty{})
}

// found says whether the status has a finding of a code, and which.
func (p *plane) found(code string) string {
	p.t.Helper()
	for _, f := range p.status().Findings {
		if string(f.Code) == code {
			return f.String()
		}
	}
	return ""
}

func (p *plane) token(node string, role snapshot.Role, identities ...string) string {
	p.t.Helper()
	return ask[adminapi.TokenResponse](p.t, p.local(), "CreateToken",
		&adminapi.TokenRequest{Node: node, Role: role, Identities: identities}).Token
}

// credential is a key, its certificate and the roots that came with it.
type credential struct {
	key   *ecdsa.PrivateKey
	chain [][]byte
	roots []byte
}

func (c credential) tls(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return &tls.Certificate{Certificate: c.chain, PrivateKey: c.key}, nil
}

// join trades a token for a node's identity.
func (p *plane) join(token string) (credential, error) {
	p.t.Helper()
	parsed, err := ca.ParseToken(token)
	must(p.t, err)
	c := credential{key: newKey(p.t)}
	conn := p.conn(p.cfg.AgentAddress, credentials.NewTLS(ca.PinnedTLS(parsed.Fingerprint, nil)))
	resp, err := agentapi.Client{Conn: conn}.Attest(soon(p.t),
		&agentapi.AttestRequest{Token: token, CSR: csr(p.t, c.key)})
	if err != nil {
		return c, err
	}
	c.chain, c.roots = resp.Chain, resp.Roots
	return c, nil
}

// as is a connection to the agents' port with a certificate.
func (p *plane) as(c credential) *grpc.ClientConn {
	p.t.Helper()
	return p.conn(p.cfg.AgentAddress, credentials.NewTLS(p.tlsAs(&c)))
}

// tlsAs trusts the control plane; without a credential it shows none.
func (p *plane) tlsAs(c *credential) *tls.Config {
	p.t.Helper()
	if c == nil {
		return ca.PinnedTLS(p.status().RootSHA256, nil)
	}
	return ca.Client{
		Roots: func() []byte { return c.roots }, Certificate: c.tls,
		Expect: []spiffe.ID{spiffe.Control(cards(p.t))},
	}.TLS()
}

func cards(t *testing.T) spiffe.TrustDomain {
	t.Helper()
	td, err := spiffe.ParseTrustDomain("cards.example")
	must(t, err)
	return td
}

// fakeAgent is a joined agent with its standing conversation.
type fakeAgent struct {
	t *testing.T
	credential
	conn *grpc.ClientConn
	sync rpc.Stream[agentapi.Report, agentapi.Instructions]
	told chan *agentapi.Instructions
	end  chan error
}

// agent joins a node, and reports what it hosts.
func (p *plane) agent(node string, identities []string, workloads ...snapshot.Workload) *fakeAgent {
	p.t.Helper()
	c, err := p.join(p.token(node, snapshot.RoleNode, identities...))
	must(p.t, err)
	a := p.resume(c)
	a.report(agentapi.Report{Version: "test", Workloads: workloads})
	return a
}

// resume connects an agent that has joined before.
func (p *plane) resume(c credential) *fakeAgent {
	p.t.Helper()
	a := &fakeAgent{
		t: p.t, credential: c, conn: p.as(c), told: make(chan *agentapi.Instructions, 100),
		end: make(chan error, 1),
	}
	var err error
	a.sync, err = agentapi.Client{Conn: a.conn}.Sync(p.t.Context())
	must(p.t, err)
	go func() {
		for {
			in, err := a.sync.Recv()
			if err != nil {
				a.end <- err
				return
			}
			a.told <- in
		}
	}()
	return a
}

func (a *fakeAgent) report(r agentapi.Report) {
	a.t.Helper()
	must(a.t, a.sync.Send(&r))
}

// instructed waits for instructions of which ok is true.
func (a *fakeAgent) instructed(what string, ok func(*agentapi.Instructions) bool) {
	a.t.Helper()
	late := time.After(patience)
	for {
		select {
		case in := <-a.told:
			if ok(in) {
				return
			}
		case err := <-a.end:
			a.t.Fatalf("%s: the conversation ended: %v", what, err)
		case <-late:
			a.t.Fatalf("%s: it was not told", what)
		}
	}
}

// sign asks for a workload's certificate, patiently: a report takes a moment to be taken in.
func (a *fakeAgent) sign(namespace, serviceAccount string) (credential, error) {
	a.t.Helper()
	c := credential{key: newKey(a.t)}
	resp, err := agentapi.Client{Conn: a.conn}.Sign(soon(a.t),
		&agentapi.SignRequest{Namespace: namespace, ServiceAccount: serviceAccount, CSR: csr(a.t, c.key)})
	if err != nil {
		return c, err
	}
	c.chain, c.roots = resp.Chain, resp.Roots
	return c, nil
}

// proxy is an Envoy of few words.
type proxy struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	news   chan *discoveryv3.DeltaDiscoveryResponse
	end    chan error
	has    map[string]map[string]string // version by name, by type
}

// ads opens a discovery stream. The proxy says that it is somebody else, which must not matter.
func ads(t *testing.T, conn *grpc.ClientConn, had map[string]map[string]string) *proxy {
	t.Helper()
	return adsOf(t, t.Context(), conn, had)
}

func adsOf(t *testing.T, ctx context.Context, conn *grpc.ClientConn, had map[string]map[string]string) *proxy {
	t.Helper()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	must(t, err)
	p := &proxy{
		t: t, stream: stream, news: make(chan *discoveryv3.DeltaDiscoveryResponse, 100),
		end: make(chan error, 1), has: map[string]map[string]string{},
	}
	for _, typ := range []string{envoy.ClusterType, envoy.ListenerType} {
		p.has[typ] = map[string]string{}
		for name, version := range had[typ] {
			p.has[typ][name] = version
		}
		p.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: typ, InitialResourceVersions: had[typ],
			Node: &corev3.Node{Id: "node-b", Cluster: "node-b"},
		})
	}
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				p.end <- err
				return
			}
			p.news <- r
		}
	}()
	return p
}

func (p *proxy) send(r *discoveryv3.DeltaDiscoveryRequest) {
	p.t.Helper()
	_ = p.stream.Send(r) // a stream that has ended says why in Recv
}

// take reads one response and acknowledges it; nil when none comes in time.
func (p *proxy) take(wait time.Duration) *discoveryv3.DeltaDiscoveryResponse {
	p.t.Helper()
	select {
	case r := <-p.news:
		for _, res := range r.Resources {
			p.has[r.TypeUrl][res.Name] = res.Version
		}
		for _, name := range r.RemovedResources {
			delete(p.has[r.TypeUrl], name)
		}
		p.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
		return r
	case <-time.After(wait):
		return nil
	}
}

// until reads until ok.
func (p *proxy) until(what string, ok func() bool) {
	p.t.Helper()
	for late := time.Now().Add(patience); !ok(); {
		if p.take(100*time.Millisecond) == nil && time.Now().After(late) {
			p.t.Fatalf("%s: it has %v", what, p.has)
		}
	}
}

func (p *proxy) hasListener(name string) func() bool {
	return func() bool { return p.has[envoy.ListenerType][name] != "" }
}

func workload(name, account, address string) snapshot.Workload {
	return snapshot.Workload{
		Name: name, Namespace: "default", ServiceAccount: account, Labels: map[string]string{"app": name}, Ready: true,
		Addresses: []netip.Addr{netip.MustParseAddr(address)}, Netns: "/run/netns/isthmus-t-" + name,
		Ports: []snapshot.WorkloadPort{{Name: "http", Number: 8080}},
	}
}

func ask[Resp, Req any](t *testing.T, conn *grpc.ClientConn, method string, req *Req) *Resp {
	t.Helper()
	resp, err := adminapi.Call[Req, Resp](soon(t), conn, method, req)
	must(t, err)
	return resp
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func csr(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err)
	return der
}

// soon is the time that one call may take.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	waittest.Until(t, what, ok)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// received is an error that must have come in time.
func received(t *testing.T, what string, end <-chan error) error {
	t.Helper()
	select {
	case err := <-end:
		return err
	case <-time.After(patience):
		t.Fatalf("%s: it goes on", what)
		return nil
	}
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: %q lacks %q", what, text, part)
		}
	}
}

var loopbacks atomic.Uint32

// freePort is an address on loopback that nobody listens on, of a host that nobody else is given: a port that is free
// for a moment on 127.0.0.1 may be anybody's the next.
func freePort(t *testing.T) string {
	t.Helper()
	n := loopbacks.Add(1)
	host := netip.AddrFrom4([4]byte{127, byte(1 + os.Getpid()%250), byte(n / 250), byte(1 + n%250)})
	l, err := net.Listen("tcp", netip.AddrPortFrom(host, 0).String())
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}
