package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/state/statetest"
	"isthmus.dev/isthmus/internal/vip"
	"isthmus.dev/isthmus/internal/waittest"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// lab is a store on a real state file, and a way to break that file's use.
type lab struct {
	*Store
	kept *breakable
}

type breakable struct {
	state.Store
	mu     sync.Mutex // guards broken and writes
	broken error
	writes int
	skip   bool          // registrations are not written: five hundred take a disk seconds
	gate   chan struct{} // registrations wait for it, if there is one
	hang   chan struct{} // virtual addresses wait for it, if there is one
}

func (b *breakable) SaveVIPs(ctx context.Context, c vip.Change) error {
	if b.hang != nil {
		<-b.hang
	}
	if err := b.fail(); err != nil {
		return err
	}
	return b.Store.SaveVIPs(ctx, c)
}

func (b *breakable) RegisterNode(ctx context.Context, r state.Registration, now time.Time) error {
	if err := b.fail(); err != nil {
		return err
	}
	if b.gate != nil {
		<-b.gate
	}
	if b.skip {
		return nil
	}
	return b.Store.RegisterNode(ctx, r, now)
}

func (b *breakable) fail() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writes++
	return b.broken
}

func (b *breakable) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writes
}

func (b *breakable) breakBy(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.broken = err
}

func newLab(t *testing.T, path string) *lab {
	t.Helper()
	db, err := sqlite.Open(t.Context(), path)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	kept := &breakable{Store: db}
	s, err := Open(t.Context(), Config{
		Kept: kept, Roots: func() []byte { return []byte("roots") },
		Now: func() time.Time { return noon }, Ended: func(string) bool { return false },
	})
	must(t, err)
	return &lab{s, kept}
}

func file(t *testing.T) string { return filepath.Join(statetest.Dir(t), "state.db") }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// changed says whether there is news, and takes it.
func (l *lab) changed() bool {
	select {
	case <-l.Changed():
		return true
	default:
		return false
	}
}

func (l *lab) attest(t *testing.T, name string) {
	t.Helper()
	must(t, l.kept.AttestNode(t.Context(),
		state.Node{Node: snapshot.Node{Name: name, Role: snapshot.RoleNode}, Attested: noon}))
}

// always is the standing of nodes that nobody revokes.
func always() error { return nil }

func node(name string) snapshot.Node { return snapshot.Node{Name: name, Role: snapshot.RoleNode} }

func workloads(on, address string) []snapshot.Workload {
	return []snapshot.Workload{{
		Name: "w-" + on, Namespace: "default", ServiceAccount: "w", Node: on,
		Addresses: []netip.Addr{netip.MustParseAddr(address)}, Labels: map[string]string{"app": "w"},
	}}
}

func services(names ...string) *snapshot.Config {
	all := make([]metav1.Object, len(names))
	for i, n := range names {
		all[i] = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: n, Namespace: "default"}}
	}
	return (&snapshot.Config{}).With(snapshot.PutAll(all...))
}

func meshPeer(name, trustDomain string) *v1alpha1.MeshPeer {
	return &v1alpha1.MeshPeer{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       v1alpha1.MeshPeerSpec{TrustDomain: trustDomain},
	}
}

func TestVirtualAddressesAreKept(t *testing.T) {
	path := file(t)
	l := newLab(t, path)
	must(t, l.SetConfig(t.Context(), services("a", "b")))
	first := l.Snapshot().VIPs
	if len(first) != 2 || !vip.Range.Contains(first["a.default.svc.cluster.local"]) ||
		first["a.default.svc.cluster.local"] == first["b.default.svc.cluster.local"] {
		t.Fatalf("virtual addresses: %v", first)
	}
	must(t, l.SetConfig(t.Context(), services("b", "c")))
	same(t, "what a snapshot holds stays", len(first), 2)
	same(t, "b's address beside others", l.Snapshot().VIPs["b.default.svc.cluster.local"],
		first["b.default.svc.cluster.local"])
	must(t, l.SetConfig(t.Context(), services("a")))
	same(t, "a's address when it comes back", l.Snapshot().VIPs["a.default.svc.cluster.local"],
		first["a.default.svc.cluster.local"])
	must(t, l.SetConfig(t.Context(), services("a", "b", "c")))
	third := maps.Clone(l.Snapshot().VIPs)
	must(t, l.kept.Close())

	again := newLab(t, path)
	must(t, again.SetConfig(t.Context(), services("c", "b", "a")))
	same(t, "after a restart", again.Snapshot().VIPs, third)
}

// A host that is new has an address at once, whatever it comes with, or from, is otherwise as it was.
func TestNewHostsGetAddresses(t *testing.T) {
	l := newLab(t, file(t))
	has := func(host string) {
		t.Helper()
		if _, ok := l.Snapshot().VIPs[host]; !ok {
			t.Errorf("%s has no address", host)
		}
	}
	cfg := services("a")
	must(t, l.SetConfig(t.Context(), cfg))
	more := cfg.With(snapshot.PutAll(snapshot.Of[*corev1.Service](services("b"))...))
	must(t, l.SetConfig(t.Context(), more))
	has("b.default.svc.cluster.local")
	renamed := more.With(snapshot.PutAll(&v1alpha1.Mesh{Spec: v1alpha1.MeshSpec{Domain: "else.where"}}))
	must(t, l.SetConfig(t.Context(), renamed))
	has("b.default.svc.else.where")
	imported := renamed.With(
		snapshot.PutAll(&v1alpha1.FederatedImport{ObjectMeta: metav1.ObjectMeta{Name: "c", Namespace: "default"}}))
	must(t, l.SetConfig(t.Context(), imported))
	has("c.default.svc.else.where")
	entered := imported.With(
		snapshot.PutAll(&networking.ServiceEntry{Spec: networkingapi.ServiceEntry{Hosts: []string{"api.example"}}}))
	must(t, l.SetConfig(t.Context(), entered))
	has("api.example")
}

func TestWhoGetsAVirtualAddress(t *testing.T) {
	l := newLab(t, file(t))
	cfg := services("a")
	cfg = cfg.With(snapshot.PutAll(&v1alpha1.Mesh{Spec: v1alpha1.MeshSpec{Domain: "corp"}}))
	cfg = cfg.With(snapshot.PutAll(&v1alpha1.FederatedImport{ObjectMeta: metav1.ObjectMeta{
		Name:      "i",
		Namespace: "shop",
	}}))
	entry := &networking.ServiceEntry{}
	entry.Spec.Hosts = []string{"API.Example.com.", "*.example.com"}
	cfg = cfg.With(snapshot.PutAll(entry))
	must(t, l.SetConfig(t.Context(), cfg))
	got := map[string]bool{}
	for host := range l.Snapshot().VIPs {
		got[host] = true
	}
	same(t, "hosts", got, map[string]bool{"a.default.svc.corp": true, "i.shop.svc.corp": true, "api.example.com": true})
}

// A namespace with more names than it may have is told so, others are served, and look-ups do not wait meanwhile.
func TestNamesBeyondANamespacesBound(t *testing.T) {
	l := newLab(t, file(t))
	l.attest(t, "a")
	must(t, l.Register(t.Context(), 1, node("a"), workloads("a", "10.0.0.1"), always))
	many := make([]string, 66_000)
	for i := range many {
		many[i] = fmt.Sprintf("s%05d", i)
	}
	cfg := services(many...)
	cfg = cfg.With(snapshot.PutAll(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "other"}}))
	done := make(chan error, 1)
	go func() { done <- l.SetConfig(t.Context(), cfg) }()
	looked := 0
	for waiting := true; waiting; {
		select {
		case err := <-done:
			must(t, err)
			waiting = false
		default:
			if !l.Hosts("a", "default", "w") {
				t.Fatal("the node's workload is gone")
			}
			looked++
		}
	}
	if looked < 1000 {
		t.Errorf("%d look-ups while addresses were chosen: they waited", looked)
	}
	snap := l.Snapshot()
	if !snap.VIPs["b.other.svc.cluster.local"].IsValid() || !snap.VIPs["s00000.default.svc.cluster.local"].IsValid() {
		t.Error("no address where there is room")
	}
	same(t, "findings", snap.Config.Findings, []finding.Finding{{
		Code: "ISM0290", Severity: finding.Error, Object: kind.Key{Kind: "Namespace", Name: "default"},
		Message: "57808 of its names, s08192.default.svc.cluster.local first, have no virtual address, so nobody can call them: a namespace has at most 8192",
		Remedy:  "remove Services, ServiceEntry hosts and FederatedImports that nobody needs, or spread them over namespaces",
	}})
	must(t, l.SetConfig(t.Context(), services("new")))
	if snap = l.Snapshot(); len(snap.Config.Findings) > 0 || !snap.VIPs["new.default.svc.cluster.local"].IsValid() {
		t.Errorf("once they are removed: %d addresses, findings %v", len(snap.VIPs), snap.Config.Findings)
	}
}

// A file of a peering's name wins where it is older or means the same mesh; else the peering stands. Either is told.
func TestFileAndPeeringOfOneName(t *testing.T) {
	l := newLab(t, file(t))
	root, other := pemRoot(t), pemRoot(t)
	peer := func(td, inline string) *v1alpha1.MeshPeer {
		p := meshPeer("both", td)
		p.Spec.Bundle.Inline = inline
		return p
	}
	made := peer("cards.example", root)
	made.Spec.KnownAs = "by-token"
	must(t, l.kept.EstablishPeer(t.Context(), made, peerrules.Learned(made, nil), 1, noon))
	must(t, l.kept.EstablishPeer(t.Context(), meshPeer("token", "token.example"), []byte("roots"), 1, noon))
	const wins = "ISM0003 warning peers.yaml:7 MeshPeer both metadata.name: a peering of this name was also made by token; the file is used Fix: remove the file, or isthmus peer revoke both"
	const loses = "ISM0270 error peers.yaml:7 MeshPeer both metadata.name: a peering of this name was made by token before, with another trust domain or other roots; " +
		"it stands, and the file is ignored Fix: choose another name, or isthmus peer revoke both first"
	for name, tt := range map[string]struct {
		td, roots string
		seen      time.Time
		want      string
	}{
		"older, another mesh":          {"other.example", other, noon.Add(-time.Hour), wins},
		"newer, the same mesh":         {"cards.example", root, noon.Add(time.Hour), wins},
		"newer, another mesh":          {"other.example", other, noon.Add(time.Hour), loses},
		"newer, other roots":           {"cards.example", other, noon.Add(time.Hour), loses},
		"newer, one more root":         {"cards.example", root + other, noon.Add(time.Hour), loses},
		"newer, no roots":              {"cards.example", "", noon.Add(time.Hour), loses},
		"of unknown age, another mesh": {"other.example", other, time.Time{}, loses},
		"as old, another mesh":         {"other.example", other, noon, loses},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := &snapshot.Config{
				Objects: snapshot.ObjectsOf(
					peer(tt.td, tt.roots),
					meshPeer("file", "file.example"),
				).WithOrigins(map[snapshot.Key]snapshot.Origin{
					{Kind: "MeshPeer", Name: "both"}: {File: "peers.yaml", Line: 7, FirstSeen: tt.seen},
				}),
				Findings: make([]finding.Finding, 0, 4),
			}
			must(t, l.SetConfig(t.Context(), cfg))
			must(t, l.Reload(t.Context()))
			snap := l.Snapshot().Config
			same(t, "findings", len(snap.Findings), 1)
			same(t, "the finding", snap.Report(snap.Findings)[0].String(), tt.want)
			got := map[string]string{}
			for _, p := range snapshot.Of[*v1alpha1.MeshPeer](snap) {
				got[p.Name] = p.Spec.KnownAs
			}
			want, file := "", "peers.yaml"
			if tt.want == loses {
				want, file = "by-token", ""
			}
			same(t, "peers", got, map[string]string{"both": want, "file": "", "token": ""})
			same(t, "file of the one that counts", snap.Origin(snapshot.Key{Kind: "MeshPeer", Name: "both"}).File, file)
			same(t, "age of a peering", snap.Origin(snapshot.Key{Kind: "MeshPeer", Name: "token"}).FirstSeen, noon)
			same(t, "what was given is not written to",
				[]any{len(snapshot.Of[*v1alpha1.MeshPeer](cfg)), cfg.Findings[:1][0].Code}, []any{2, finding.Code("")})
		})
	}
}

func pemRoot(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: noon, NotAfter: noon.Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// What is shut is shut from the next snapshot on, whatever the state says, and until it is reopened.
func TestShut(t *testing.T) {
	l := newLab(t, file(t))
	must(t, l.kept.EstablishPeer(t.Context(), meshPeer("cards", "cards.example"), []byte("roots"), 1, noon))
	must(t, l.Reload(t.Context()))
	l.changed()
	is := func(peer string) [3]bool {
		s := l.Snapshot()
		return [3]bool{
			s.Peers[peer].Suspended, s.Peers[peer].Revoked,
			len(snapshot.Of[*v1alpha1.MeshPeer](s.Config)) == 1,
		}
	}
	same(t, "before", is("cards"), [3]bool{false, false, true})
	l.Shut("cards", false)
	same(t, "it is news", l.changed(), true)
	same(t, "suspended", is("cards"), [3]bool{true, false, true})
	must(t, l.Reload(t.Context()))
	same(t, "suspended, and the state says nothing of it", is("cards"), [3]bool{true, false, true})
	l.Shut("cards", true)
	l.Shut("cards", false)
	same(t, "revoked", is("cards"), [3]bool{true, true, false})
	l.Shut("by a file", true)
	same(t, "one that the state does not know", is("by a file"), [3]bool{true, true, false})
	l.Reopen("cards")
	same(t, "reopened", is("cards"), [3]bool{false, false, true})
	must(t, l.kept.SetPeerSuspended(t.Context(), "cards", true))
	must(t, l.Reload(t.Context()))
	same(t, "and suspended by the state", is("cards"), [3]bool{true, false, true})
}

func TestRegisterWithoutChangeCostsNothing(t *testing.T) {
	l := newLab(t, file(t))
	l.attest(t, "a")
	must(t, l.Register(t.Context(), 1, node("a"), workloads("a", "10.0.0.1"), always))
	same(t, "the first is news", l.changed(), true)
	snap, writes := l.Snapshot(), l.kept.writes
	for range 10 {
		must(t, l.Register(t.Context(), 1, node("a"), workloads("a", "10.0.0.1"), always))
	}
	same(t, "the same is none", l.changed(), false)
	same(t, "nor is it written", l.kept.writes, writes)
	if l.Snapshot() != snap {
		t.Error("nor makes it a snapshot")
	}
	for what, change := range map[string]func(*snapshot.Workload){
		"address":   func(w *snapshot.Workload) { w.Addresses = []netip.Addr{netip.MustParseAddr("10.0.0.2")} },
		"readiness": func(w *snapshot.Workload) { w.Ready = true },
		"label":     func(w *snapshot.Workload) { w.Labels = map[string]string{"app": "x"} },
		"netns":     func(w *snapshot.Workload) { w.Netns = "/run/netns/new" },
		"port":      func(w *snapshot.Workload) { w.Ports = []snapshot.WorkloadPort{{Number: 1}} },
		"account":   func(w *snapshot.Workload) { w.ServiceAccount = "x" },
	} {
		ws := workloads("a", "10.0.0.1")
		change(&ws[0])
		must(t, l.Register(t.Context(), 1, node("a"), ws, always))
		same(t, what+" is news", l.changed(), true)
		must(t, l.Register(t.Context(), 1, node("a"), workloads("a", "10.0.0.1"), always))
		l.changed()
	}
}

func TestManyRegistrationsAreOneSnapshot(t *testing.T) {
	l := newLab(t, file(t))
	const n = 500
	l.kept.skip = true
	l.changed()
	before := l.Snapshot()
	var g sync.WaitGroup
	for i := range n {
		g.Go(func() {
			name := fmt.Sprintf("n%03d", i)
			if err := l.Register(context.Background(), 1, node(name),
				workloads(name, fmt.Sprintf("10.0.%d.%d", i/250, i%250)), always); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	same(t, "there is news", l.changed(), true)
	same(t, "once", l.changed(), false)
	snap := l.Snapshot()
	if snap != l.Snapshot() || snap == before {
		t.Error("one snapshot was to be made")
	}
	same(t, "workloads", len(snap.Registry.Workloads), n)
	same(t, "in order", []string{snap.Registry.Nodes[0].Name, snap.Registry.Nodes[n-1].Name}, []string{"n000", "n499"})
	same(t, "the old snapshot stays", len(before.Registry.Nodes), 0)
}

// A slow disk holds up neither snapshots nor certificates, and a node that is revoked meanwhile stays away.
func TestSlowRegistration(t *testing.T) {
	l := newLab(t, file(t))
	l.attest(t, "a")
	l.kept.gate = make(chan struct{})
	registered := make(chan error)
	go func() {
		registered <- l.Register(context.Background(), 1, node("a"), workloads("a", "10.0.0.1"), always)
	}()
	waittest.Until(t, "the registration is being written", func() bool { return l.kept.count() > 0 })
	same(t, "nobody registered yet", len(l.Snapshot().Registry.Nodes), 0)
	same(t, "and hosts nothing", l.Hosts("a", "default", "w"), false)
	must(t, l.SetConfig(t.Context(), &snapshot.Config{}))
	l.Forget("a")
	close(l.kept.gate)
	if err := <-registered; !errors.Is(err, state.ErrRevoked) {
		t.Errorf("the registration: %v", err)
	}
	same(t, "a revoked node stays away", len(l.Snapshot().Registry.Nodes), 0)
}

// Whoever reads Changed and then Snapshot has everything that was said before Changed.
func TestNoNewsIsLost(t *testing.T) {
	l := newLab(t, file(t))
	l.attest(t, "a")
	done := make(chan struct{})
	const n = 100
	go func() {
		defer close(done)
		for i := range n {
			if err := l.SetConfig(context.Background(), services(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		}
	}()
	last := func() bool {
		return l.Snapshot().Config.Objects.Get(snapshot.Key{
			Kind: "Service", Namespace: "default",
			Name: fmt.Sprint(n - 1),
		}) != nil
	}
	for seen := false; !seen; {
		select {
		case <-l.Changed():
			seen = last()
		case <-time.After(5 * time.Second):
			t.Fatal("the last change was not announced")
		}
	}
	<-done
}

func TestForgottenNode(t *testing.T) {
	path := file(t)
	l := newLab(t, path)
	for _, n := range []string{"a", "b"} {
		l.attest(t, n)
		must(t,
			l.Register(t.Context(), 1, node(n), workloads(n, map[string]string{"a": "10.0.0.1", "b": "10.0.0.2"}[n]),
				always))
	}
	l.changed()
	same(t, "it hosts", l.Hosts("a", "default", "w"), true)
	same(t, "no other account", l.Hosts("a", "default", "x"), false)
	same(t, "no other namespace", l.Hosts("a", "other", "w"), false)
	must(t, l.kept.RevokeNode(t.Context(), "a", noon))
	l.Forget("a")
	same(t, "that is news", l.changed(), true)
	same(t, "it hosts nothing", l.Hosts("a", "default", "w"), false)
	same(t, "who is left", l.Snapshot().Registry.Nodes, []snapshot.Node{node("b")})
	same(t, "and their workloads", len(l.Snapshot().Registry.Workloads), 1)
	if err := l.Register(t.Context(), 1, node("a"), workloads("a", "10.0.0.1"),
		always); !errors.Is(err, state.ErrRevoked) {
		t.Errorf("it registers again: %v", err)
	}
	same(t, "without news", l.changed(), false)
	l.Forget("a")
	same(t, "forgetting twice is no news", l.changed(), false)
}

// While the state file cannot be written, configuration is in force all the same, but for addresses of names that are
// new, and registrations that were refused do not take effect later.
func TestStateThatCannotBeWritten(t *testing.T) {
	l := newLab(t, file(t))
	l.attest(t, "a")
	must(t, l.SetConfig(t.Context(), services("a")))
	must(t, l.Register(t.Context(), 1, node("a"), workloads("a", "10.0.0.1"), always))
	full := errors.New("no space left on device")
	l.kept.breakBy(full)
	must(t, l.SetConfig(t.Context(), services("a"))) // needs nothing new
	l.changed()
	snap := l.Snapshot()
	if err := l.Register(t.Context(), 1, node("a"), workloads("a", "10.0.0.2"), always); !errors.Is(err, full) {
		t.Errorf("registration: %v", err)
	}
	same(t, "no news", l.changed(), false)
	if l.Snapshot() != snap {
		t.Error("the snapshot changed")
	}
	if err := l.SetConfig(t.Context(), services("a", "b")); !errors.Is(err, full) {
		t.Errorf("configuration: %v", err)
	}
	same(t, "configuration is news", l.changed(), true)
	same(t, "both services", len(snapshot.Of[*corev1.Service](l.Snapshot().Config)), 2)
	same(t, "one address", len(l.Snapshot().VIPs), 1)
	l.kept.breakBy(nil)
	must(t, l.Register(t.Context(), 1, node("a"), workloads("a", "10.0.0.2"), always))
	must(t, l.SetConfig(t.Context(), services("a", "b")))
	same(t, "when it can again", len(l.Snapshot().VIPs), 2)
	same(t, "the registration too", l.Snapshot().Registry.Workloads[0].Addresses[0].String(), "10.0.0.2")
}

// hanging is a state that answers no question about peers before it is told to.
type hanging struct {
	Kept
	asked, answer chan struct{}
}

func (h hanging) Peers(ctx context.Context) ([]state.Peer, error) {
	close(h.asked)
	<-h.answer
	return h.Kept.Peers(ctx)
}

// While the state hangs, configuration takes effect and nodes are heard.
func TestNobodyWaitsForAStateThatHangs(t *testing.T) {
	l := newLab(t, file(t))
	must(t, l.kept.SetPeerSuspended(t.Context(), "cards", true))
	h := hanging{Kept: l.cfg.Kept, asked: make(chan struct{}), answer: make(chan struct{})}
	l.cfg.Kept = h
	read := make(chan error, 1)
	go func() { read <- l.Reload(t.Context()) }()
	<-h.asked
	seen := make(chan bool, 1)
	go func() {
		l.Shut("retail", false)
		seen <- l.Snapshot().Peers["retail"].Suspended
	}()
	select {
	case shut := <-seen:
		same(t, "in effect meanwhile", shut, true)
	case <-time.After(30 * time.Second):
		t.Error("a snapshot waits for the state")
	}
	close(h.answer)
	must(t, <-read)
	same(t, "in effect once it answers", l.Snapshot().Peers["cards"].Suspended, true)
}

// While the state hangs, a configuration is in force, and the one after it too. Names that are new have addresses once
// it answers, those of the newest.
func TestConfigurationDoesNotWaitForAStateThatHangs(t *testing.T) {
	t.Parallel()
	l := newLab(t, file(t))
	must(t, l.SetConfig(t.Context(), services("a")))
	l.kept.hang = make(chan struct{})
	has := func(when string, addresses int, names ...string) {
		t.Helper()
		snap := l.Snapshot()
		var got []string
		for _, s := range snapshot.Of[*corev1.Service](snap.Config) {
			got = append(got, s.Name)
		}
		same(t, when+", services", got, names)
		same(t, when+", addresses", len(snap.VIPs), addresses)
	}
	if l.SetConfigSoon(t.Context(), services("a", "b")) == nil {
		t.Error("nobody says that names have no address")
	}
	has("while it hangs", 1, "a", "b")
	if l.SetConfigSoon(t.Context(), services("a", "c", "d")) == nil {
		t.Error("nobody says that names have no address")
	}
	has("while it still hangs", 1, "a", "c", "d")
	close(l.kept.hang)
	waittest.Until(t, "all have addresses", func() bool { return len(l.Snapshot().VIPs) == 3 })
	has("when it answers", 3, "a", "c", "d")
}
