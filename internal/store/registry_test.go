package store

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/fieldtest"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/waittest"
)

// hosted is a workload in a network namespace of its own.
func hosted(name string, addresses ...string) snapshot.Workload {
	w := snapshot.Workload{
		Name: name, Namespace: "default", ServiceAccount: "w", Netns: "/run/netns/" + name,
		Ready: true,
	}
	for _, a := range addresses {
		w.Addresses = append(w.Addresses, netip.MustParseAddr(a))
	}
	return w
}

// inForce are the workloads of a snapshot, as "<name>@<node>".
func (l *lab) inForce() []string {
	out := []string{}
	for _, w := range l.Snapshot().Registry.Workloads {
		out = append(out, w.Name+"@"+w.Node)
	}
	return out
}

func (l *lab) clashes() []string {
	out := []string{}
	for _, f := range l.Snapshot().Registry.Clashes {
		out = append(out, string(f.Code)+" "+f.Object.String())
	}
	return out
}

func (l *lab) says(t *testing.T, stream uint64, on string, ws ...snapshot.Workload) {
	t.Helper()
	for i := range ws {
		ws[i].Node = on
	}
	must(t, l.Register(t.Context(), stream, node(on), ws, always))
	must(t, l.Settle(t.Context()))
}

// Who has a name or an address keeps it: whatever sorts first, across a restart, and until it gives it up or is
// revoked. Then it is theirs who have waited longest.
func TestClashesEvictNobody(t *testing.T) {
	path := file(t)
	l := newLab(t, path)
	for _, n := range []string{"a", "b", "c"} {
		l.attest(t, n)
	}
	l.says(t, 1, "c", hosted("web", "10.0.0.1"))
	l.says(t, 2, "b", hosted("web", "10.0.0.2"), hosted("shop", "10.0.0.3"))
	l.says(t, 3, "a", hosted("web", "10.0.0.4"), hosted("evil", "10.0.0.9", "10.0.0.1"))
	same(t, "in force", l.inForce(), []string{"shop@b", "web@c"})
	same(t, "clashes", l.clashes(),
		[]string{"ISM0012 workload default/web", "ISM0244 workload default/evil", "ISM0012 workload default/web"})
	same(t, "a hosts nothing", l.Hosts("a", "default", "w"), false)
	must(t, l.kept.Close())

	l = newLab(t, path)
	same(t, "after a restart", l.inForce(), []string{"shop@b", "web@c"})
	l.says(t, 4, "a", hosted("web", "10.0.0.4"))
	l.says(t, 5, "b", hosted("web", "10.0.0.2"))
	same(t, "and who comes again has what it had", l.inForce(), []string{"web@c"})

	away := hosted("web", "10.0.0.1")
	away.Away = true
	l.says(t, 6, "c", away)
	same(t, "who is away serves not, and keeps its name", l.inForce(), []string{})
	same(t, "nor has it a certificate", l.Hosts("c", "default", "w"), false)
	l.says(t, 7, "c", hosted("other", "10.0.0.1"))
	same(t, "what was given up is the first's who waits", l.inForce(), []string{"web@a", "other@c"})
	must(t, l.kept.RevokeNode(t.Context(), "a", noon))
	l.Forget("a")
	must(t, l.Settle(t.Context()))
	same(t, "what a revoked node had is the next one's", l.inForce(), []string{"web@b", "other@c"})
	same(t, "no clash is left", l.clashes(), []string{})
}

func TestAddressesOfOneNode(t *testing.T) {
	l := newLab(t, file(t))
	l.attest(t, "a")
	inHost := func(name string) snapshot.Workload {
		w := hosted(name, "10.0.0.1")
		w.Netns = ""
		return w
	}
	l.says(t, 1, "a", inHost("one"), inHost("two"))
	same(t, "two of the host's own namespace share an address", l.inForce(), []string{"one@a", "two@a"})
	l.says(t, 2, "a", hosted("one", "10.0.0.1"), hosted("two", "10.0.0.1"))
	same(t, "two of other namespaces do not", l.inForce(), []string{"one@a"})
	l.says(t, 3, "a", hosted("new", "10.0.0.1"), hosted("one", "10.0.0.1"))
	same(t, "the older has it", l.inForce(), []string{"one@a"})
	l.says(t, 4, "a", hosted("one", "10.0.0.2"), hosted("two", "10.0.0.1"))
	same(t, "they may exchange them", l.inForce(), []string{"one@a", "two@a"})
	l.says(t, 5, "a", hosted("one", "10.0.0.1"), hosted("two", "10.0.0.2"))
	same(t, "and back", l.inForce(), []string{"one@a", "two@a"})
	same(t, "no clash is left", l.clashes(), []string{})
}

// A revocation waits for no registration that waits for the database, and that has no effect any more.
func TestRevocationWaitsForNoRegistration(t *testing.T) {
	l := newLab(t, file(t))
	for _, n := range []string{"a", "b"} {
		l.attest(t, n)
	}
	l.says(t, 1, "a", hosted("web", "10.0.0.1"))
	l.kept.gate = make(chan struct{})
	underway, written, forgotten := make(chan struct{}), make(chan error), make(chan struct{})
	go func() {
		written <- l.Register(t.Context(), 2, node("a"), []snapshot.Workload{
			hosted("web", "10.0.0.1"),
			hosted("more", "10.0.0.2"),
		}, func() error { close(underway); return nil })
	}()
	<-underway
	go func() { l.Forget("a"); close(forgotten) }()
	select {
	case <-forgotten:
	case <-time.After(waittest.Patience):
		t.Fatal("the revocation waits")
	}
	same(t, "in force", l.inForce(), []string{})
	close(l.kept.gate)
	if err := <-written; !errors.Is(err, state.ErrRevoked) {
		t.Errorf("the registration: %v", err)
	}
	same(t, "once it is written", l.inForce(), []string{})
	must(t, l.kept.RevokeNode(t.Context(), "a", noon))
	l.says(t, 3, "b", hosted("web", "10.0.0.1"), hosted("more", "10.0.0.2"))
	same(t, "what it claimed is free", l.inForce(), []string{"web@b", "more@b"})
}

// A registration that is read before its revocation is written does not bring the node back.
func TestReloadBringsNoRevokedNodeBack(t *testing.T) {
	l := newLab(t, file(t))
	l.attest(t, "a")
	l.says(t, 1, "a", hosted("web", "10.0.0.1"))
	r, err := l.kept.Registration(t.Context(), "a")
	must(t, err)
	l.cfg.Ended = func(generation string) bool { return generation == r.Generation }
	l.Forget("a")
	must(t, l.ReloadNodes(t.Context()))
	same(t, "in force", l.inForce(), []string{})
	must(t, l.kept.AttestNode(t.Context(), state.Node{
		Node: snapshot.Node{Name: "a", Role: snapshot.RoleNode}, Generation: "again", Attested: noon,
	}))
	must(t, l.ReloadNode(t.Context(), "a"))
	same(t, "once it has joined again", l.inForce(), []string{"web@a"})
}

// A revocation holds before it is written, and what it frees is given on as soon as it is.
func TestWhatARevocationFrees(t *testing.T) {
	l := newLab(t, file(t))
	for _, n := range []string{"a", "b"} {
		l.attest(t, n)
	}
	l.says(t, 1, "a", hosted("web", "10.0.0.1"))
	l.says(t, 2, "b", hosted("web", "10.0.0.2"))
	full := errors.New("no space left on device")
	l.kept.breakBy(full)
	l.Forget("a")
	if err := l.Settle(t.Context()); !errors.Is(err, full) {
		t.Fatalf("settled: %v", err)
	}
	same(t, "while nothing can be written", l.inForce(), []string{})
	l.kept.breakBy(nil)
	must(t, l.Settle(t.Context()))
	same(t, "while the revocation is not written", l.inForce(), []string{})
	must(t, l.kept.RevokeNode(t.Context(), "a", noon))
	l.changed()
	l.Written()
	same(t, "it is news", l.changed(), true)
	must(t, l.Settle(t.Context()))
	same(t, "then", l.inForce(), []string{"web@b"})
	reg, err := l.kept.Registry(t.Context())
	must(t, err)
	same(t, "written", []string{reg.Workloads[0].Name, reg.Workloads[0].Node}, []string{"web", "b"})
}

// What cannot be written claims nothing.
func TestClaimsThatCannotBeWritten(t *testing.T) {
	l := newLab(t, file(t))
	l.attest(t, "a")
	l.attest(t, "b")
	l.says(t, 1, "a", hosted("web", "10.0.0.1"))
	full := errors.New("no space left on device")
	l.kept.breakBy(full)
	if err := l.Register(t.Context(), 2, node("a"), []snapshot.Workload{hosted("shop", "10.0.0.2")},
		always); !errors.Is(err, full) {
		t.Fatalf("registered: %v", err)
	}
	l.kept.breakBy(nil)
	l.says(t, 3, "b", hosted("shop", "10.0.0.2"), hosted("web", "10.0.0.1"))
	same(t, "in force", l.inForce(), []string{"web@a", "shop@b"})
}

// Whatever is said at once, each name and each address is one workload's, and of each node's streams the newest counts.
func TestRegistrationsAtOnce(t *testing.T) {
	l := newLab(t, file(t))
	l.kept.skip = true
	const nodes, streams = 8, 20
	var g sync.WaitGroup
	for n := range nodes {
		for s := range streams {
			g.Go(func() {
				on := fmt.Sprintf("n%d", n)
				ws := []snapshot.Workload{
					hosted("own-"+on, fmt.Sprintf("10.0.%d.%d", n+1, s)), hosted("all", "10.0.0.1"),
					hosted("any-"+on, "10.0.0.2"),
				}
				for i := range ws {
					ws[i].Node = on
				}
				if err := l.Register(context.Background(), uint64(s+1), node(on), ws, always); err != nil &&
					!errors.Is(err, ErrSuperseded) {
					t.Error(err)
				}
				if err := l.Settle(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
	}
	g.Wait()
	names, addrs, own := map[string]bool{}, map[netip.Addr]bool{}, 0
	for _, w := range l.Snapshot().Registry.Workloads {
		if names[w.Name] || slices.ContainsFunc(w.Addresses, func(a netip.Addr) bool { return addrs[a] }) {
			t.Errorf("%s on %s clashes", w.Name, w.Node)
		}
		names[w.Name] = true
		addrs[w.Addresses[0]] = true
		if a := w.Addresses[0].As4(); a[2] > 0 {
			own++
			if a[3] != streams-1 {
				t.Errorf("%s is where stream %d said", w.Name, a[3]+1)
			}
		}
	}
	if own != nodes || !names["all"] || len(names) != nodes+2 {
		t.Errorf("in force: %v", names)
	}
}

// A field of a node that the comparison forgets would be a report that is never registered.
func TestEveryFieldOfANodeIsCompared(t *testing.T) {
	for _, wrong := range fieldtest.Unseen(equalNodes, nil) {
		t.Error(wrong)
	}
}
