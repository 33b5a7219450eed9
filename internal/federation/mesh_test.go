package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/logtest"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/state/statetest"
	"isthmus.dev/isthmus/internal/waittest"
	"isthmus.dev/isthmus/internal/wellknown"
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
// Envoy configuration does: one chain per name, exact client identity under pinned roots, bytes passed on as they come.
type mesh struct {
	*Service
	t        testing.TB
	db       state.Store
	refusals *door.Refusals
	root     authority
	net      *network
	td       spiffe.TrustDomain
	gateway  tls.Certificate
	control  tls.Certificate
	carries  func(gateway net.Conn) net.Conn // what a stolen gateway does with what it carries
	address  netip.AddrPort
	peering  string // address of the peering server
	// reachedAt is where gateways are told that they reach the control plane.
	reachedAt []netip.AddrPort
	// listening is where the gateway really listens.
	listening string
	logs      *logtest.Buffer

	ended atomic.Bool

	mu     sync.Mutex // guards the rest
	config *snapshot.Config
	roots  []byte
	skew   time.Duration
}

type option func(*mesh, *Config)

func (m *mesh) door(methods map[string]door.Method) *door.Door {
	return door.New(door.Config{
		Methods: methods, Events: m.db, Refusals: m.refusals, Log: slog.New(slog.DiscardHandler),
	})
}

// unhurried lets peers ask as often as they like.
func unhurried(m *mesh, c *Config) {
	all := door.Table(Methods)
	for name, method := range all {
		method.Rate = 0
		all[name] = method
	}
	c.Door = m.door(all)
}

// events are those on record, refusals that are counted included.
func (m *mesh) events(f state.EventFilter) []state.Event {
	m.t.Helper()
	if err := m.refusals.Flush(context.Background()); err != nil {
		m.t.Fatal(err)
	}
	events, err := m.db.Events(context.Background(), f)
	if err != nil {
		m.t.Fatal(err)
	}
	return events
}

func newMesh(t testing.TB, n *network, name, ip string, options ...option) *mesh {
	t.Helper()
	db, err := sqlite.Open(context.Background(), filepath.Join(statetest.Dir(t), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	m := &mesh{
		t: t, db: db, root: newAuthority(t, name), net: n, td: domain(t, name+".example"), logs: &logtest.Buffer{},
		address: netip.AddrPortFrom(netip.MustParseAddr(ip), 15443), config: &snapshot.Config{},
		reachedAt: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.9:15013")},
	}
	t.Cleanup(func() {
		m.ended.Store(true) // a request under way may still ask for a snapshot
		_ = db.Close()
	})
	m.roots = peerrules.EncodeRoots([]*x509.Certificate{m.root.cert})
	m.gateway = m.certificate("spiffe://" + name + ".example/ns/isthmus-system/sa/gateway")
	// for tests that skip a day
	chain, key := m.root.issueFor(t, "spiffe://"+name+".example/isthmus/control", 100*time.Hour)
	m.control = tls.Certificate{Certificate: chain[:1], PrivateKey: key}
	c := Config{
		TrustDomain: m.td, Name: name, Snapshot: m.snapshot, Store: db, Gateways: only(m.dialGateway), Now: m.now,
		Identity: func() (*tls.Certificate, error) { return withRoot(m.control, m.root), nil },
		Log:      slog.New(slog.NewTextHandler(m.logs, nil)), MinRefresh: 50 * time.Millisecond,
		MaxRefresh: 200 * time.Millisecond, RefreshHint: time.Second, AcceptTimeout: 5 * time.Second,
	}
	alone(&c)
	m.refusals = &door.Refusals{Events: db, Log: c.Log}
	c.Door = m.door(door.Table(Methods))
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

// alone sets what the rest of a control plane does for this part, as if there were nothing else of it.
func alone(c *Config) {
	c.FromGateway = func(context.Context, door.Caller) error { return nil }
	c.Block, c.Unblock, c.Stored = func(string, bool) {}, func(string) {}, func(string) {}
	c.Changed = func() {}
	c.InForce = func(string) bool { return true }
	c.Export = func(string, string) (exported, ready bool) { return false, false }
	c.InEffect = func(_ string, written []snapshot.OfferedService) []snapshot.OfferedService { return written }
	c.Unready = func(string) []snapshot.OfferedName { return nil }
	c.Leading = func() (Store, bool) { return c.Store, true }
	c.LeadersHealth = func(string) (Health, bool) { return Health{}, false }
}

// What a control plane forgets to wire is said at its start: a check or a revocation without effect would be silent.
func TestEverythingIsWired(t *testing.T) {
	c := Config{
		TrustDomain: domain(t, "retail.example"), Name: "retail", Store: unwrittenStore{},
		Door: door.New(door.Config{}), Gateways: func() []Gateway { return nil },
		Snapshot: func() *snapshot.Snapshot { return nil },
		Identity: func() (*tls.Certificate, error) { return nil, nil }, Log: slog.New(slog.DiscardHandler),
	}
	alone(&c)
	if _, err := New(c); err != nil {
		t.Fatal(err)
	}
	for i := range reflect.TypeFor[Config]().NumField() {
		less := c
		field, value := reflect.TypeFor[Config]().Field(i), reflect.ValueOf(&less).Elem().Field(i)
		switch field.Type.Kind() {
		case reflect.Func, reflect.Pointer, reflect.Interface:
			value.SetZero()
			if _, err := New(less); (err == nil) != (field.Name == "Now") {
				t.Errorf("without %s: %v", field.Name, err)
			}
		}
	}
}

// unwrittenStore is a store that nobody asks.
type unwrittenStore struct{ Store }

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

// keys are the root and the certificates of now.
func (m *mesh) keys() (root authority, gateway, control tls.Certificate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.root, m.gateway, m.control
}

// rotate puts everything under another root, alone.
func (m *mesh) rotate(next authority) {
	chain, key := next.issue(m.t, m.asGateway())
	control, controlKey := next.issue(m.t, "spiffe://"+m.td.Name()+"/isthmus/control")
	m.mu.Lock()
	m.root = next
	m.gateway = tls.Certificate{Certificate: chain[:1], PrivateKey: key}
	m.control = tls.Certificate{Certificate: control[:1], PrivateKey: controlKey}
	m.mu.Unlock()
	m.setRoots(next.cert)
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
	config := m.config
	peers := map[string]snapshot.PeerState{}
	for _, k := range kept {
		k.State.Revoked = !k.Revoked.IsZero()
		peers[k.Name] = k.State
		if k.Object != nil {
			var made snapshot.Change
			made.Put(snapshot.NewObject(k.Object, snapshot.Origin{Source: snapshot.SourceToken}))
			config = config.With(made)
		}
	}
	return &snapshot.Snapshot{
		Time: now, Config: config, Peers: peers, Invites: invites, Bootstraps: bootstraps, Roots: m.roots,
		PeeringAddresses: m.reachedAt,
		Registry: &snapshot.Registry{Nodes: []snapshot.Node{{
			Name: "gw", Role: snapshot.RoleGateway,
			Gateway: &snapshot.GatewayInfo{
				ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr("10.0.0.1"),
				OuterAddress: m.address.Addr(),
			},
		}}},
	}
}

func (m *mesh) must(err error) {
	if err != nil && !m.ended.Load() {
		m.t.Error(err)
	}
}

// only is a mesh's only gateway.
func only(dial func(context.Context, string) (net.Conn, error)) func() []Gateway {
	return func() []Gateway { return []Gateway{{Name: "gw", Dial: dial}} }
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
	i := slices.IndexFunc(snapshot.Of[*v1alpha1.MeshPeer](snap.Config),
		func(p *v1alpha1.MeshPeer) bool { return p.Name == name })
	if i < 0 || !v.Control {
		return nil, fmt.Errorf("no chain for %s", sni)
	}
	p := snapshot.Of[*v1alpha1.MeshPeer](snap.Config)[i]
	raw, err := m.net.dial(ctx, p.Spec.GatewayAddresses[0])
	if err != nil {
		return nil, err
	}
	_, gateway, _ := m.keys()
	conn := tls.Client(raw, &tls.Config{
		ServerName:   "control." + p.Spec.KnownAs + ".fed." + p.Spec.TrustDomain,
		Certificates: []tls.Certificate{gateway}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, VerifyConnection: func(cs tls.ConnectionState) error {
			return verifyPeer(cs, v.Roots, p.Spec.GatewayIDs)
		},
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
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots:     pool,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		return err
	}
	if len(leaf.URIs) != 1 || !slices.Contains(ids, leaf.URIs[0].String()) {
		return errors.New("another identity")
	}
	return nil
}

// withRoot is a certificate with the root at the end of its chain.
func withRoot(c tls.Certificate, root authority) *tls.Certificate {
	c.Certificate = append(slices.Clone(c.Certificate), root.cert.Raw)
	return &c
}

// serveGateway does what the gateway's port 15443 does.
func (m *mesh) serveGateway() {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	listener := tls.NewListener(raw, &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			return m.chainConfig(h.ServerName)
		},
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go m.carry(conn.(*tls.Conn))
		}
	}()
	m.t.Cleanup(func() { _ = listener.Close() })
	m.listening = raw.Addr().String()
	m.net.route(m.address.String(), m.listening)
}

// carry takes a connection from another mesh to the control plane.
func (m *mesh) carry(from *tls.Conn) {
	defer from.Close()
	if from.Handshake() != nil {
		return
	}
	_, gateway, _ := m.keys()
	to, err := m.toPeering(gateway, wellknown.PeeringProtocol)
	if err != nil {
		return
	}
	defer to.Close()
	var outside net.Conn = from
	if m.carries != nil {
		outside = m.carries(from)
	}
	go func() {
		_, _ = io.Copy(to, outside)
		_ = to.CloseWrite()
	}()
	_, _ = io.Copy(outside, to)
}

// toPeering connects to port 15013.
func (m *mesh) toPeering(as tls.Certificate, protocol string) (*tls.Conn, error) {
	return tls.Dial("tcp", m.peering, &tls.Config{
		Certificates: []tls.Certificate{as}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
		NextProtos: []string{protocol},
	})
}

// chain says for which peer or invitation a name stands.
func (m *mesh) chain(name string) (peer, invite string) {
	snap := m.snapshot()
	for _, i := range snap.Invites {
		if name == i.ID+".invite.fed."+m.td.Name() {
			return "", i.ID
		}
	}
	for _, p := range snapshot.Of[*v1alpha1.MeshPeer](snap.Config) {
		if name == "control."+p.Name+".fed."+m.td.Name() {
			return p.Name, ""
		}
	}
	return "", ""
}

func (m *mesh) chainConfig(name string) (*tls.Config, error) {
	peer, invite := m.chain(name)
	root, gateway, _ := m.keys()
	shown := []tls.Certificate{*withRoot(gateway, root)}
	switch {
	case invite != "":
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: shown}, nil
	case peer != "":
		snap := m.snapshot()
		v := peerrules.All(snap, m.td.Name())[peer]
		if !v.Control {
			return nil, errors.New("no chain")
		}
		i := slices.IndexFunc(snapshot.Of[*v1alpha1.MeshPeer](snap.Config),
			func(p *v1alpha1.MeshPeer) bool { return p.Name == peer })
		return &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: shown, ClientAuth: tls.RequireAnyClientCert,
			VerifyConnection: func(cs tls.ConnectionState) error {
				return verifyPeer(cs, v.Roots, snapshot.Of[*v1alpha1.MeshPeer](snap.Config)[i].Spec.GatewayIDs)
			},
		}, nil
	}
	return nil, errors.New("no chain")
}

func (m *mesh) pool() *x509.CertPool {
	p := x509.NewCertPool()
	root, _, _ := m.keys()
	p.AddCert(root.cert)
	return p
}

// servePeering serves port 15013.
func (m *mesh) servePeering() {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.Serve(ctx, tls.NewListener(raw,
			&tls.Config{
				MinVersion: tls.VersionTLS13,
				GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
					_, _, control := m.keys()
					return &tls.Config{
						MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{control},
						NextProtos: []string{wellknown.PeeringProtocol, "http/1.1"},
						ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: m.pool(),
					}, nil
				},
			}))
	}()
	m.t.Cleanup(func() { cancel(); <-done })
	m.peering = raw.Addr().String()
}

// speaker is who speaks to a peering server: through which gateway, with whose certificate, asking for which name.
type speaker struct {
	gateway tls.Certificate
	control tls.Certificate
	sni     string
}

// asPeer is a peer's control plane, through this mesh's gateway.
func (m *mesh) asPeer(p *mesh, name string) speaker {
	return speaker{m.gateway, p.control, "control." + name + ".fed." + m.td.Name()}
}

// asInvited is the control plane of a mesh with an invitation.
func (m *mesh) asInvited(p *mesh, id string) speaker {
	return speaker{m.gateway, p.control, id + ".invite.fed." + m.td.Name()}
}

// dialAs connects as a speaker.
func (m *mesh) dialAs(who speaker) (net.Conn, error) {
	outer, err := m.toPeering(who.gateway, wellknown.PeeringProtocol)
	if err != nil {
		return nil, err
	}
	inner := tls.Client(outer, &tls.Config{
		Certificates: []tls.Certificate{who.control}, ServerName: who.sni, InsecureSkipVerify: true,
		MinVersion: tls.VersionTLS13,
	})
	if err := inner.Handshake(); err != nil {
		_ = outer.Close()
		return nil, err
	}
	return inner, nil
}

// post speaks to the peering server; without a body it asks.
func (m *mesh) post(who speaker, path string, body io.Reader) (int, string) {
	m.t.Helper()
	return m.postOn(func() (net.Conn, error) { return m.dialAs(who) }, path, nil, body)
}

func (m *mesh) postOn(dial func() (net.Conn, error), path string, header http.Header, body io.Reader) (int, string) {
	m.t.Helper()
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return dial() }, DisableKeepAlives: true,
	}}
	method := http.MethodPost
	if body == nil {
		method = http.MethodGet
	}
	req, err := http.NewRequest(method, "http://peering"+path, body)
	if err != nil {
		m.t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
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

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	waittest.Until(t, what, ok)
}
