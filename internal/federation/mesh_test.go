package federation

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// network is what joins the meshes of a test: gateway addresses as peers know them, and where they really listen.
type network struct {
	mu    sync.Mutex // guards where, cut
	where map[string]string
	cut   bool
}

func (n *network) dial(ctx context.Context, addr string) (net.Conn, error) {
	n.mu.Lock()
	real, cut := n.where[addr], n.cut
	n.mu.Unlock()
	if cut || real == "" {
		return nil, fmt.Errorf("%s is unreachable", addr)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", real)
}

func (n *network) setCut(cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
}

func (n *network) route(addr, real string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.where[addr] = real
}

// mesh is one control plane with the gateway that stands before it. The gateway is a Go program that does what the
// Envoy configuration does: one chain per name, exact client identity under pinned roots, headers overwritten.
type mesh struct {
	*Service
	t       testing.TB
	db      *state.DB
	root    authority
	net     *network
	td      spiffe.TrustDomain
	gateway tls.Certificate
	address netip.AddrPort
	peering string // address of the peering server
	// listening is where the gateway really listens.
	listening string
	logs      *bytes.Buffer

	ended atomic.Bool

	mu     sync.Mutex // guards the rest
	config *snapshot.Config
	roots  []byte
	skew   time.Duration
}

type option func(*mesh, *Config)

func newMesh(t testing.TB, n *network, name, ip string, options ...option) *mesh {
	t.Helper()
	db, err := state.Open(context.Background(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	m := &mesh{
		t: t, db: db, root: newAuthority(t, name), net: n, td: domain(t, name+".example"), logs: &bytes.Buffer{},
		address: netip.AddrPortFrom(netip.MustParseAddr(ip), 15443), config: &snapshot.Config{},
	}
	t.Cleanup(func() {
		m.ended.Store(true) // a request under way may still ask for a snapshot
		_ = db.Close()
	})
	m.roots = peerrules.EncodeRoots([]*x509.Certificate{m.root.cert})
	m.gateway = m.certificate("spiffe://" + name + ".example/ns/isthmus-system/sa/gateway")
	c := Config{
		TrustDomain: m.td, Name: name, Snapshot: m.snapshot, Store: db, DialGateway: m.dialGateway, Now: m.now,
		Log:        slog.New(slog.NewTextHandler(&lockedWriter{w: m.logs}, nil)),
		MinRefresh: 50 * time.Millisecond, MaxRefresh: 200 * time.Millisecond, RefreshHint: time.Second, AcceptTimeout: 5 * time.Second,
	}
	for _, o := range options {
		o(m, &c)
	}
	if m.Service, err = New(c); err != nil {
		t.Fatal(err)
	}
	m.servePeering()
	m.serveGateway()
	return m
}

type lockedWriter struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func (m *mesh) certificate(id string) tls.Certificate {
	chain, key := m.root.issue(m.t, id)
	return tls.Certificate{Certificate: chain[:1], PrivateKey: key}
}

func (m *mesh) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.skew)
}

func (m *mesh) skip(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.skew += d
}

// edit changes a copy of the configuration.
func (m *mesh) edit(change func(*snapshot.Config)) {
	m.mu.Lock()
	c := *m.config
	change(&c)
	m.config = &c
	m.mu.Unlock()
	m.Wake()
}

func (m *mesh) setRoots(certs ...*x509.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.roots = peerrules.EncodeRoots(certs)
}

// snapshot is made anew each time, as the store would.
func (m *mesh) snapshot() *snapshot.Snapshot {
	ctx, now := context.Background(), m.now()
	kept, err := m.db.Peers(ctx)
	m.must(err)
	invites, err := m.db.OpenInvites(ctx, now)
	m.must(err)
	bootstraps, err := m.db.Bootstraps(ctx, now)
	m.must(err)
	m.mu.Lock()
	defer m.mu.Unlock()
	config := *m.config
	config.MeshPeers = slices.Clone(config.MeshPeers)
	peers := map[string]snapshot.PeerState{}
	for _, k := range kept {
		k.State.Revoked = !k.Revoked.IsZero()
		peers[k.Name] = k.State
		if k.Object != nil {
			config.MeshPeers = append(config.MeshPeers, k.Object)
		}
	}
	return &snapshot.Snapshot{
		Time: now, Config: &config, Peers: peers, Invites: invites, Bootstraps: bootstraps, Roots: m.roots,
		Registry: &snapshot.Registry{Nodes: []snapshot.Node{{Name: "gw", Role: snapshot.RoleGateway, Gateway: &snapshot.GatewayInfo{
			ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr("10.0.0.1"), OuterAddress: m.address.Addr(),
		}}}},
	}
}

func (m *mesh) must(err error) {
	if err != nil && !m.ended.Load() {
		m.t.Error(err)
	}
}

// dialGateway does what the own gateway's port 15444 does.
func (m *mesh) dialGateway(ctx context.Context, sni string) (net.Conn, error) {
	snap := m.snapshot()
	if id, ok := strings.CutPrefix(sni, "bootstrap."); ok {
		i := slices.IndexFunc(snap.Bootstraps, func(b snapshot.Bootstrap) bool { return b.ID == id })
		if i < 0 {
			return nil, fmt.Errorf("no chain for %s", sni)
		}
		return m.net.dial(ctx, snap.Bootstraps[i].Address)
	}
	name, _ := strings.CutPrefix(sni, "control.")
	v := peerrules.All(snap, m.td.Name())[name]
	i := slices.IndexFunc(snap.Config.MeshPeers, func(p *v1alpha1.MeshPeer) bool { return p.Name == name })
	if i < 0 || !v.Control {
		return nil, fmt.Errorf("no chain for %s", sni)
	}
	p := snap.Config.MeshPeers[i]
	raw, err := m.net.dial(ctx, p.Spec.GatewayAddresses[0])
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, &tls.Config{
		ServerName: "control." + p.Spec.KnownAs + ".fed." + p.Spec.TrustDomain, Certificates: []tls.Certificate{m.gateway}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error { return verifyPeer(cs, v.Roots, p.Spec.GatewayIDs) },
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

func verifyPeer(cs tls.ConnectionState, roots []byte, ids []string) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	leaf := cs.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return err
	}
	if len(leaf.URIs) != 1 || !slices.Contains(ids, leaf.URIs[0].String()) {
		return errors.New("another identity")
	}
	return nil
}

// serveGateway does what the gateway's port 15443 does.
func (m *mesh) serveGateway() {
	var listener net.Listener
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: m.peering})
			peer, invite := m.chain(r.In.TLS.ServerName)
			for h, v := range map[string]string{HeaderPeer: peer, HeaderInvite: invite} {
				r.Out.Header.Del(h)
				if v != "" {
					r.Out.Header.Set(h, v)
				}
			}
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{
			Certificates: []tls.Certificate{m.gateway}, RootCAs: m.pool(), InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
		}},
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		return m.chainConfig(h.ServerName)
	}}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	listener = tls.NewListener(raw, config)
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = server.Serve(listener) }()
	m.t.Cleanup(func() { _ = server.Close() })
	m.listening = raw.Addr().String()
	m.net.route(m.address.String(), m.listening)
}

// chain says for which peer or invitation a name stands.
func (m *mesh) chain(name string) (peer, invite string) {
	snap := m.snapshot()
	for _, i := range snap.Invites {
		if name == i.ID+".invite.fed."+m.td.Name() {
			return "", i.ID
		}
	}
	for _, p := range snap.Config.MeshPeers {
		if name == "control."+p.Name+".fed."+m.td.Name() {
			return p.Name, ""
		}
	}
	return "", ""
}

func (m *mesh) chainConfig(name string) (*tls.Config, error) {
	peer, invite := m.chain(name)
	withRoot := m.gateway
	withRoot.Certificate = append(slices.Clone(withRoot.Certificate), m.root.cert.Raw)
	switch {
	case invite != "":
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{withRoot}}, nil
	case peer != "":
		snap := m.snapshot()
		v := peerrules.All(snap, m.td.Name())[peer]
		if !v.Control {
			return nil, errors.New("no chain")
		}
		i := slices.IndexFunc(snap.Config.MeshPeers, func(p *v1alpha1.MeshPeer) bool { return p.Name == peer })
		return &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{withRoot}, ClientAuth: tls.RequireAnyClientCert,
			VerifyConnection: func(cs tls.ConnectionState) error {
				return verifyPeer(cs, v.Roots, snap.Config.MeshPeers[i].Spec.GatewayIDs)
			},
		}, nil
	}
	return nil, errors.New("no chain")
}

func (m *mesh) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(m.root.cert)
	return p
}

// servePeering serves port 15013.
func (m *mesh) servePeering() {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	server := m.HTTPServer(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{m.certificate("spiffe://" + m.td.Name() + "/isthmus/control")},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: m.pool(),
	})
	go func() { _ = server.ServeTLS(raw, "", "") }()
	m.t.Cleanup(func() { _ = server.Close() })
	m.peering = raw.Addr().String()
}

// post speaks to the peering server as one of the mesh's own programs.
func (m *mesh) post(id, path string, header http.Header, body io.Reader) (int, string) {
	m.t.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{m.certificate(id)}, InsecureSkipVerify: true,
	}}}
	defer client.CloseIdleConnections()
	method := http.MethodPost
	if body == nil {
		method = http.MethodGet
	}
	req, err := http.NewRequest(method, "https://"+m.peering+path, body)
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header = header
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// asGateway is the identity of the mesh's gateway.
func (m *mesh) asGateway() string { return "spiffe://" + m.td.Name() + "/ns/isthmus-system/sa/gateway" }

// live runs the service until the test ends.
func (m *mesh) live() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := m.Run(ctx); !errors.Is(err, context.Canceled) {
			m.t.Error(err)
		}
	}()
	m.t.Cleanup(func() { cancel(); <-done })
}

// pair is two meshes, cards and retail, that know nothing of each other.
func pair(t testing.TB, options ...option) (cards, retail *mesh, n *network) {
	t.Helper()
	n = &network{where: map[string]string{}}
	return newMesh(t, n, "cards", "192.0.2.1", options...), newMesh(t, n, "retail", "192.0.2.2", options...), n
}

// join makes retail accept an invitation of cards.
func join(t testing.TB, cards, retail *mesh) Peering {
	t.Helper()
	i, err := cards.Invite(t.Context(), "retail", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	p, err := retail.Accept(t.Context(), i.Token.Encode(), "")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// eventually waits up to 5 s for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}
