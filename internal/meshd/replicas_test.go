package meshd

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state/pgtest"
	"isthmus.dev/isthmus/internal/state/statetest"
	"isthmus.dev/isthmus/internal/waittest"
)

// newReplicas sets up two control planes of one mesh, on one database.
func newReplicas(t *testing.T, files map[string]string) (a, b *plane) {
	t.Helper()
	database := pgtest.Shared(t).Database(t)
	a, b = newPlane(t, files), newPlane(t, files)
	for _, p := range []*plane{a, b} {
		p.cfg.StateFile, p.cfg.Postgres, p.cfg.KeyFile = "", database, a.cfg.KeyFile
	}
	return a, b
}

// startReplicas starts them one after the other: the first makes the key file.
func startReplicas(t *testing.T, files map[string]string) (a, b *plane) {
	t.Helper()
	a, b = newReplicas(t, files)
	a.start()
	b.start()
	return a, b
}

// TestControlProcess is no test: it is the control plane of those that kill one.
func TestControlProcess(t *testing.T) {
	text := os.Getenv("ISTHMUS_TEST_CONTROL")
	if text == "" {
		t.Skip("for tests that kill a control plane")
	}
	var cfg config.Control
	must(t, json.Unmarshal([]byte(text), &cfg))
	must(t, Run(t.Context(), cfg, slog.New(slog.NewTextHandler(os.Stderr, nil))))
}

// startProcess starts a control plane in a process of its own, and returns what kills it.
func (p *plane) startProcess() (kill func()) {
	p.t.Helper()
	text, err := json.Marshal(p.cfg)
	must(p.t, err)
	cmd := exec.Command(os.Args[0], "-test.run", "^TestControlProcess$")
	cmd.Env, cmd.Stderr = append(os.Environ(), "ISTHMUS_TEST_CONTROL="+string(text)), p.logs
	must(p.t, cmd.Start())
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p.t.Cleanup(kill)
	eventually(p.t, "the process is ready", func() bool {
		resp, err := http.Get("http://" + p.cfg.HealthAddress + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return kill
}

// A join token is good once, whichever control planes are asked at the same moment.
func TestTokensWorkOnceAtTwoControlPlanes(t *testing.T) {
	t.Parallel()
	a, b := startReplicas(t, map[string]string{"mesh.yaml": meshYAML})
	for i := range 5 {
		token := a.token(fmt.Sprint("node-", i), snapshot.RoleNode, "default/*")
		var joined atomic.Int32
		var all sync.WaitGroup
		for j := range 8 {
			p := []*plane{a, b}[j%2]
			all.Go(func() {
				if _, err := p.join(token); err == nil {
					joined.Add(1)
				} else if status.Code(err) != codes.PermissionDenied && status.Code(err) != codes.ResourceExhausted {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if n := joined.Load(); n != 1 {
			t.Errorf("the token was good %d times", n)
		}
	}
}

// Whoever is shut out at one control plane is shut out at the other, and what is open there ends.
func TestRevocationReachesTheOtherControlPlane(t *testing.T) {
	t.Parallel()
	a, b := startReplicas(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	shop := b.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	shop.instructed("anything", func(*agentapi.Instructions) bool { return true })
	eventually(t, "the other knows the workload",
		func() bool { return len(a.d.store.Snapshot().Registry.Workloads) == 1 })
	ask[adminapi.Empty](t, a.local(), "RevokeNode", &adminapi.NodeRequest{Node: "node-a"})
	wantCode(t, "its conversation", received(t, "the conversation of a revoked node", shop.end), codes.PermissionDenied)
	_, err := shop.sign("default", "shop")
	wantCode(t, "a certificate for its workload", err, codes.PermissionDenied)
	eventually(t, "its workload is gone", func() bool { return len(b.d.store.Snapshot().Registry.Workloads) == 0 })
	if _, err = b.join(b.token("node-a", snapshot.RoleNode, "default/shop")); err != nil {
		t.Errorf("joining anew: %v", err)
	}

	must(t, a.d.db.EstablishPeer(t.Context(), &v1alpha1.MeshPeer{
		ObjectMeta: metav1.ObjectMeta{Name: "retail"},
		Spec:       v1alpha1.MeshPeerSpec{TrustDomain: "retail.example", GatewayAddresses: []string{"192.0.2.1:15443"}},
	}, a.d.authority.Roots(), 1, time.Now()))
	suspended := func(p *plane) func() bool {
		return func() bool { return p.d.store.Snapshot().Peers["retail"].Suspended }
	}
	eventually(t, "both know the peer", func() bool {
		return len(a.d.store.Snapshot().Peers)+
			len(b.d.store.Snapshot().Peers) == 2
	})
	ask[adminapi.Empty](t, a.local(), "PeerSuspend", &adminapi.PeerRequest{Peer: "retail"})
	eventually(t, "suspended at the other", suspended(b))
	ask[adminapi.Empty](t, b.local(), "PeerResume", &adminapi.PeerRequest{Peer: "retail"})
	eventually(t, "resumed at the first", func() bool { return !suspended(a)() })
	ask[adminapi.Empty](t, b.local(), "PeerRevoke", &adminapi.PeerRequest{Peer: "retail"})
	eventually(t, "revoked at the first", func() bool { return a.d.store.Snapshot().Peers["retail"].Revoked })
}

// Of two nodes that come to two control planes with one workload at the same moment one has it, both control planes
// say which, and the other gets it when the first is revoked.
func TestOneWorkloadAtTwoControlPlanes(t *testing.T) {
	t.Parallel()
	a, b := startReplicas(t, map[string]string{"mesh.yaml": meshYAML})
	ca, err := a.join(a.token("node-a", snapshot.RoleNode, "default/*"))
	must(t, err)
	cb, err := b.join(b.token("node-b", snapshot.RoleNode, "default/*"))
	must(t, err)
	agents := []*fakeAgent{a.resume(ca), b.resume(cb)}
	var all sync.WaitGroup
	for i, one := range agents {
		all.Go(func() {
			one.report(agentapi.Report{Workloads: []snapshot.Workload{workload("shop", "shop",
				fmt.Sprint("10.0.0.", i+1))}})
		})
	}
	all.Wait()
	owner := func(p *plane) string {
		if ws := p.d.store.Snapshot().Registry.Workloads; len(ws) == 1 {
			return ws[0].Node
		}
		return ""
	}
	eventually(t, "both say the same", func() bool { return owner(a) != "" && owner(a) == owner(b) })
	first, other := a, "node-b"
	if owner(a) == "node-b" {
		first, other = b, "node-a"
	}
	second := map[*plane]*plane{a: b, b: a}[first]
	eventually(t, "the other hears of the clash", func() bool { return second.found("ISM0012") != "" })
	ask[adminapi.Empty](t, second.local(), "RevokeNode", &adminapi.NodeRequest{Node: owner(a)})
	eventually(t, "the other has it now", func() bool { return owner(a) == other && owner(b) == other })
}

// An agent that comes to another control plane has left the first, and is not silent for either.
func TestAgentsMoveBetweenControlPlanes(t *testing.T) {
	t.Parallel()
	a, b := startReplicas(t, map[string]string{"mesh.yaml": meshYAML})
	shop := a.agent("node-a", []string{"default/*"}, workload("shop", "shop", "10.0.0.1"))
	eventually(t, "the other knows where it is",
		func() bool { _, there := b.d.agents.Reports()["node-a"]; return there })
	moved := b.resume(shop.credential)
	moved.report(agentapi.Report{Workloads: []snapshot.Workload{workload("web", "web", "10.0.0.2")}})
	wantCode(t, "the former conversation", received(t, "the former conversation", shop.end), codes.Aborted)
	eventually(t, "both know what it says now", func() bool {
		for _, p := range []*plane{a, b} {
			r := p.d.agents.Reports()["node-a"]
			if len(r.Workloads) != 1 || r.Workloads[0].Name != "web" ||
				p.d.store.Snapshot().Registry.Workloads[0].Name != "web" {
				return false
			}
		}
		return true
	})
	must(t, moved.conn.Close())
	eventually(t, "both know that it has gone",
		func() bool { return len(a.d.agents.Reports())+len(b.d.agents.Reports()) == 0 })
}

// Names that are written at both at the same moment get one address each, and the same at both.
func TestVirtualAddressesOfTwoControlPlanes(t *testing.T) {
	t.Parallel()
	a, b := startReplicas(t, map[string]string{"mesh.yaml": meshYAML})
	const names = 60
	var text strings.Builder
	for i := range names {
		fmt.Fprintf(&text,
			"---\napiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: default}\nspec: {ports: [{port: 80}]}\n", i)
	}
	var all sync.WaitGroup
	for _, p := range []*plane{a, b} {
		all.Go(func() { p.write("services.yaml", text.String()) })
	}
	all.Wait()
	eventually(t, "both have all addresses", func() bool {
		return len(a.d.store.Snapshot().VIPs) == names && len(b.d.store.Snapshot().VIPs) == names
	})
	at := map[netip.Addr]string{}
	for host, addr := range a.d.store.Snapshot().VIPs {
		if b.d.store.Snapshot().VIPs[host] != addr {
			t.Errorf("%s is %s at one and %s at the other", host, addr, b.d.store.Snapshot().VIPs[host])
		}
		if at[addr] != "" {
			t.Errorf("%s and %s share %s", host, at[addr], addr)
		}
		at[addr] = host
	}
}

// Which of two objects of one name was first is the same at both control planes, which see the files in another order,
// and stays so when they start again.
func TestFirstIsFirstAtTwoControlPlanes(t *testing.T) {
	t.Parallel()
	a, b := startReplicas(t, map[string]string{"mesh.yaml": meshYAML})
	const services = 20
	file := func(name string) string {
		var text strings.Builder
		for i := range services {
			fmt.Fprintf(&text, "---\napiVersion: v1\nkind: Service\nmetadata: {name: s%d, namespace: default, "+
				"labels: {from: %s}}\nspec: {ports: [{port: 80}]}\n", i, name)
		}
		return text.String()
	}
	both := func(p *plane) func() bool {
		return func() bool {
			n := 0
			for _, f := range p.status().Findings {
				if f.Code == "ISM-SRC04" {
					n++
				}
			}
			return n == services
		}
	}
	var all sync.WaitGroup
	for p, order := range map[*plane][]string{a: {"one", "two"}, b: {"two", "one"}} {
		all.Go(func() {
			for _, name := range order {
				p.write(name+".yaml", file(name))
				waittest.Quiet(300 * time.Millisecond) // so that they are two changes
			}
		})
	}
	all.Wait()
	same := func(when string) (from string) {
		t.Helper()
		for _, p := range []*plane{a, b} {
			eventually(t, "both files are read", both(p))
		}
		for i := range services {
			key := snapshot.Key{Kind: "Service", Namespace: "default", Name: fmt.Sprint("s", i)}
			x, y := a.d.store.Snapshot().Config.Objects.Get(key), b.d.store.Snapshot().Config.Objects.Get(key)
			if filepath.Base(x.Origin.File) != filepath.Base(y.Origin.File) ||
				!x.Origin.FirstSeen.Equal(y.Origin.FirstSeen) {
				t.Fatalf("%s, of %s %s (%s) is in force at one, and %s (%s) at the other", when, key, x.Origin.File,
					x.Origin.FirstSeen, y.Origin.File, y.Origin.FirstSeen)
			}
			from += filepath.Base(x.Origin.File) + " "
		}
		return from
	}
	before := same("at first")
	for _, p := range []*plane{a, b} {
		must(t, p.stop())
		p.start()
	}
	if after := same("after a start"); after != before {
		t.Errorf("before a start %s were in force, and after it %s", before, after)
	}
}

// A rotation that begins at one control plane waits for the agents and Envoys of both, and the other finishes it when
// the first is gone.
func TestRotationOfTwoControlPlanes(t *testing.T) {
	t.Parallel()
	a, b := startReplicas(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	hosts := map[*plane]snapshot.Workload{
		a: workload("shop", "shop", "10.0.0.1"),
		b: workload("payments", "payments", "10.0.0.2"),
	}
	atA := a.agent("node-a", []string{"default/shop"}, hosts[a])
	atB := b.agent("node-b", []string{"default/payments"}, hosts[b])
	pa, pb := secrets(ads(t, atA.conn, nil)), secrets(ads(t, atB.conn, nil))
	for _, p := range []*proxy{pa, pb} {
		p.until("configured", func() bool { return p.has[envoy.SecretType]["bundle/cards.example"] != "" })
	}
	before := a.caStatus().Roots[0].SHA256
	must(t, b.caRotate(adminapi.CARotateRequest{}))
	var next string
	for _, ag := range []*fakeAgent{atA, atB} {
		ag.instructed("both roots", func(in *agentapi.Instructions) bool {
			certs, err := peerrules.ParseRoots(in.Roots)
			if err != nil || len(certs) != 2 || in.SigningRoot != before {
				return false
			}
			next = spiffe.Fingerprint(certs[1])
			return true
		})
	}
	for _, p := range []*plane{a, b} {
		p.waitsFor("prepared", "node node-a: its agent has not taken up the new root",
			"node node-b: its agent has not taken up the new root")
	}
	pa.until("both roots sent", func() bool { return pa.rest() >= 0 })
	pb.until("both roots sent", func() bool { return pb.rest() >= 0 })
	atA.report(agentapi.Report{Workloads: []snapshot.Workload{hosts[a]}, Roots: []string{before, next}})
	for _, p := range []*plane{a, b} {
		p.waitsFor("prepared", "node node-b: its agent has not taken up the new root")
	}
	must(t, a.stop()) // whichever of them leads
	atA = b.resume(atA.credential)
	atA.report(agentapi.Report{Workloads: []snapshot.Workload{hosts[a]}, Roots: []string{before, next}})
	pa = secrets(ads(t, atA.conn, nil))
	pa.until("configured by the other", func() bool { return pa.has[envoy.SecretType]["bundle/cards.example"] != "" })
	atB.report(agentapi.Report{Workloads: []snapshot.Workload{hosts[b]}, Roots: []string{before, next}})
	for _, ag := range []*fakeAgent{atA, atB} {
		ag.instructed("the new root signs", func(in *agentapi.Instructions) bool { return in.SigningRoot == next })
	}
	eventually(t, "it ends", func() bool { return b.caStatus().Rotation.Step == "done" })
	if roots := b.caStatus().Roots; len(roots) != 1 || roots[0].SHA256 != next {
		t.Errorf("roots after it: %+v", roots)
	}
}

// A control plane that is killed takes nothing with it that it acknowledged: the other goes on, and knows when those
// who do not come over are silent.
func TestKilledControlPlaneLosesNothing(t *testing.T) {
	t.Parallel()
	a, b := newReplicas(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	kill := a.startProcess()
	b.start()
	shop := a.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	shop.instructed("anything", func(*agentapi.Instructions) bool { return true })
	spare := a.token("node-c", snapshot.RoleNode, "default/*")
	ask[adminapi.Empty](t, a.local(), "RevokeNode", &adminapi.NodeRequest{Node: func() string {
		_, err := a.join(a.token("node-b", snapshot.RoleNode, "default/*"))
		must(t, err)
		return "node-b"
	}()})
	must(t, a.caRotate(adminapi.CARotateRequest{}))
	kill()

	eventually(t, "the other knows the workload", func() bool {
		return len(b.d.store.Snapshot().Registry.Workloads) == 1
	})
	eventually(t, "the other knows the rotation", func() bool {
		r := b.caStatus().Rotation
		return r != nil && r.Step == "prepared"
	})
	if n, err := b.d.db.Node(t.Context(), "node-b"); err != nil || n.Revoked.IsZero() {
		t.Errorf("the revoked node: %+v, %v", n, err)
	}
	_, err := b.join(spare)
	must(t, err)
	if _, err := b.join(spare); err == nil {
		t.Error("the token was good twice")
	}
	eventually(t, "the agent that does not come over is gone", func() bool { return len(b.d.agents.Reports()) == 0 })
	again := b.resume(shop.credential)
	again.report(agentapi.Report{Workloads: []snapshot.Workload{workload("shop", "shop", "10.0.0.1")}})
	again.instructed("anything by the other", func(*agentapi.Instructions) bool { return true })
	_, err = again.sign("default", "shop")
	must(t, err)
	must(t, b.caRotate(adminapi.CARotateRequest{Cancel: true}))
}

// What only one control plane may do is done by one, and by the other when that goes.
func TestLeadPassesOn(t *testing.T) {
	t.Parallel()
	a, b := startReplicas(t, map[string]string{"mesh.yaml": meshYAML})
	leads := func(p *plane) bool { return p.d.leads() }
	eventually(t, "one leads", func() bool { return leads(a) != leads(b) })
	first, second := a, b
	if leads(b) {
		first, second = b, a
	}
	must(t, first.stop())
	eventually(t, "the other leads", func() bool { return leads(second) })
}

// A control plane without the mesh's key is refused, and makes none of its own.
func TestReplicaNeedsTheKeyOfTheFirst(t *testing.T) {
	t.Parallel()
	a, b := newReplicas(t, map[string]string{"mesh.yaml": meshYAML})
	a.start()
	b.cfg.KeyFile = filepath.Join(statetest.Dir(t), "another")
	if why := b.refusal(); !strings.Contains(why, b.cfg.KeyFile) {
		t.Errorf("refused with %s", why)
	}
}
