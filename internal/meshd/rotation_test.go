package meshd

import (
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/xds"
)

var rotNoon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// said is waits in a line each.
func said(waits []adminapi.CAWait) []string {
	var out []string
	for _, w := range waits {
		line := w.What + " " + w.Name + ": " + w.Why
		if !w.Until.IsZero() {
			line += " until " + w.Until.Format(time.TimeOnly)
		}
		out = append(out, line)
	}
	return out
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func node(name string, role snapshot.Role) state.Node {
	return state.Node{Node: snapshot.Node{Name: name, Role: role}}
}

func TestUntrusting(t *testing.T) {
	rot := ca.Rotation{Step: ca.Prepared, Old: "old", New: "new"}
	gone := node("gone", snapshot.RoleNode)
	gone.Revoked = rotNoon
	both := agentapi.Report{Roots: []string{"new", "old"}}
	waits := untrusting(rot, []state.Node{
		node("away", snapshot.RoleNode), node("edge", snapshot.RoleGateway), node("empty", snapshot.RoleNode), gone,
		node("lone", snapshot.RoleNode), node("nay", snapshot.RoleNode), node("ready", snapshot.RoleNode), node("slow", snapshot.RoleNode),
		node("split", snapshot.RoleNode),
	}, map[string]agentapi.Report{
		"edge": {Roots: []string{"old"}}, "empty": both, "lone": both, "nay": both, "ready": both, "slow": both, "split": both,
	}, []xds.Holder{
		{Proxy: "away"},
		{Proxy: "edge", Connected: true, Acked: true},
		{Proxy: "gone"},
		{Proxy: "lone"},
		{Proxy: "nay", Connected: true, Nack: "no trusted_ca"},
		{Proxy: "ready", Connected: true, Acked: true},
		{Proxy: "slow", Connected: true},
		{Proxy: "split/default/cart", Connected: true, Acked: true},
		{Proxy: "split/default/shop", Connected: true},
		{Proxy: "splitter", Connected: true},
	})
	same(t, "waits", said(waits), []string{
		"node away: its agent is not connected",
		"gateway edge: its agent has not taken up the new root",
		"node lone: its Envoy is not connected",
		"node nay: its Envoy refuses its secrets: no trusted_ca",
		"node slow: its Envoy has not acknowledged the new root",
		"node split/default/shop: its Envoy has not acknowledged the new root",
	})
}

func TestUndrained(t *testing.T) {
	rot := ca.Rotation{Step: ca.Activated, Old: "old", New: "new", Since: rotNoon}
	gone := node("gone", snapshot.RoleNode)
	gone.Revoked = rotNoon
	at := func(m int) time.Time { return rotNoon.Add(time.Duration(m) * time.Minute) }
	cert := func(id, root string) agentapi.CertState {
		return agentapi.CertState{SPIFFEID: id, Root: root, NotAfter: at(60)}
	}
	waits := undrained(rot, []state.Node{
		node("away", snapshot.RoleNode), node("busy", snapshot.RoleGateway), node("done", snapshot.RoleNode), node("ended", snapshot.RoleNode), gone,
		node("many", snapshot.RoleNode), node("over", snapshot.RoleNode),
	}, []state.CertUse{
		{SPIFFEID: "spiffe://cards.example/isthmus/admin/alice", NotAfter: at(90)},
		{SPIFFEID: "spiffe://cards.example/isthmus/control", NotAfter: at(90)}, // its own: replaced already
		{Node: "away", SPIFFEID: "spiffe://cards.example/ns/a/sa/b", NotAfter: at(10)},
		{Node: "away", SPIFFEID: "spiffe://cards.example/isthmus/node/away", NotAfter: at(40)},
		{Node: "done", SPIFFEID: "spiffe://cards.example/ns/a/sa/b", NotAfter: at(10)}, // valid still, and not in use
		{Node: "gone", SPIFFEID: "spiffe://cards.example/ns/a/sa/b", NotAfter: at(10)},
	}, map[string]agentapi.Report{
		"busy": {Certs: []agentapi.CertState{cert("spiffe://cards.example/x", "old"), cert("spiffe://cards.example/y", "new")}},
		"done": {Certs: []agentapi.CertState{cert("spiffe://cards.example/x", "new")}},
		"many": {Certs: []agentapi.CertState{cert("a", "old"), cert("b", "old"), cert("c", "old"), cert("d", "old"), cert("e", "old")}},
		// One that has ended, and one under a root that an earlier rotation withdrew.
		"over": {Certs: []agentapi.CertState{
			{SPIFFEID: "spiffe://cards.example/z", Root: "old", NotAfter: at(1)},
			cert("spiffe://cards.example/z", "older"),
		}},
	}, at(2))
	same(t, "waits", said(waits), []string{
		"node away: its agent is not connected, and has certificates under the old root until 12:40:00",
		"gateway busy: replaces its certificates: spiffe://cards.example/x until 12:00:12",
		"node many: replaces its certificates: a b c and 2 more until 12:00:12",
		"administrator alice: has credentials under the old root: make new ones (isthmus admin cert) before they end until 13:30:00",
	})
}

func TestPeerLacks(t *testing.T) {
	for _, c := range []struct {
		told federation.Told
		want string
	}{
		{federation.Told{InForce: true}, ""},
		{federation.Told{ByHand: true, Fetched: rotNoon}, "takes this mesh's roots from its own files only: give it a new isthmus peer manifest"},
		{federation.Told{}, "has not fetched the new bundle yet"},
		{federation.Told{Error: "unreachable"}, "has not fetched the new bundle, and cannot be told of it: unreachable"},
		{federation.Told{Fetched: rotNoon.Add(-time.Second)}, "has fetched the new bundle; its gateways have not all acknowledged it"},
		{federation.Told{Fetched: rotNoon.Add(-time.Hour)}, "has fetched the new bundle; its gateways have not all acknowledged it"},
		{federation.Told{Fetched: rotNoon.Add(-time.Second), Error: "404"}, "has fetched the new bundle, and cannot be asked whether its gateways have it: 404"},
		{federation.Told{Fetched: rotNoon.Add(-30 * time.Second), Error: "404"}, ""},
	} {
		if got := peerLacks(c.told, rotNoon); got != c.want {
			t.Errorf("%+v: %q, want %q", c.told, got, c.want)
		}
	}
}

func TestSettled(t *testing.T) {
	r := &rotator{}
	for i, c := range []struct {
		step  ca.Step
		clear bool
		after time.Duration
		want  bool
	}{
		{ca.Prepared, false, 0, false},
		{ca.Prepared, true, 1 * time.Second, false},
		{ca.Prepared, true, 3 * time.Second, false},
		{ca.Prepared, false, 3500 * time.Millisecond, false}, // somebody came
		{ca.Prepared, true, 5 * time.Second, false},
		{ca.Prepared, true, 8 * time.Second, true},
		{ca.Distributed, true, 8 * time.Second, true},
		{ca.Activated, true, 9 * time.Second, false}, // a step begins to settle anew
		{ca.Activated, true, 12 * time.Second, true},
		{ca.Drained, true, 12 * time.Second, true},
	} {
		if got := r.settled(c.step, c.clear, rotNoon.Add(c.after)); got != c.want {
			t.Errorf("%d, %s after %s: %v", i, c.step, c.after, got)
		}
	}
}

func TestExpected(t *testing.T) {
	rot := ca.Rotation{Step: ca.Activated, Since: rotNoon}
	for _, c := range []struct {
		step  ca.Step
		waits []adminapi.CAWait
		want  time.Time
	}{
		{ca.Activated, nil, rotNoon.Add(3 * time.Second)},
		{ca.Activated, []adminapi.CAWait{{Until: rotNoon.Add(time.Minute)}, {Until: rotNoon.Add(time.Second)}}, rotNoon.Add(63 * time.Second)},
		{ca.Prepared, []adminapi.CAWait{{Until: rotNoon.Add(time.Minute)}, {}}, time.Time{}},
		{ca.Done, nil, time.Time{}},
	} {
		rot.Step = c.step
		if got := expected(rot, c.waits); !got.Equal(c.want) {
			t.Errorf("%s %v: %s, want %s", c.step, c.waits, got, c.want)
		}
	}
}

func TestCheckRotation(t *testing.T) {
	rot := ca.Rotation{Step: ca.Prepared, Since: rotNoon}
	waits := []adminapi.CAWait{{What: "node", Name: "a", Why: "its agent is not connected"}, {What: "node", Name: "b"}}
	for _, c := range []struct {
		waits   []adminapi.CAWait
		failure string
		after   time.Duration
		want    string
	}{
		{nil, "", time.Hour, "ok: prepared since 2026-03-01T12:00:00Z"},
		{waits, "", time.Second, "ok: prepared since 2026-03-01T12:00:00Z, waits for node a: its agent is not connected, and for 1 more"},
		{waits[:1], "", time.Hour, "warning: prepared since 2026-03-01T12:00:00Z, waits for node a: its agent is not connected"},
		{nil, "disk full", 0, "failed: prepared since 2026-03-01T12:00:00Z: disk full"},
	} {
		got := checkRotation(rot, c.waits, c.failure, rotNoon.Add(c.after))
		if text := got.State + ": " + got.Detail; text != c.want || (got.State == "ok") != (got.Remedy == "") {
			t.Errorf("got %q, remedy %q\nwant %q", text, got.Remedy, c.want)
		}
	}
}

func (p *plane) caStatus() *adminapi.CAStatusResponse {
	p.t.Helper()
	return ask[adminapi.CAStatusResponse](p.t, p.local(), "CAStatus", &adminapi.Empty{})
}

func (p *plane) caRotate(r adminapi.CARotateRequest) error {
	p.t.Helper()
	_, err := adminapi.Call[adminapi.CARotateRequest, adminapi.CAStatusResponse](soon(p.t), p.local(), "CARotate", &r)
	return err
}

// waitsFor waits until a rotation is at a step and waits for exactly these.
func (p *plane) waitsFor(step string, want ...string) {
	p.t.Helper()
	var got []string
	for late := time.Now().Add(10 * time.Second); time.Now().Before(late); time.Sleep(20 * time.Millisecond) {
		r := p.caStatus().Rotation
		got = []string{r.Step}
		for _, w := range r.Waits {
			got = append(got, w.What+" "+w.Name+": "+w.Why)
		}
		if slices.Equal(got, append([]string{step}, want...)) {
			return
		}
	}
	p.t.Fatalf("it is at %q, want %s %q", got, step, want)
}

// A rotation from end to end with an agent and an Envoy that follow, an agent that stays away, and a control plane that is
// stopped at every step.
func TestRotationFollowsItsNodes(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	a := p.agent("node-a", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	b := p.agent("node-b", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	px := secrets(ads(t, a.conn, nil))
	px.until("configured", func() bool { return px.has[envoy.SecretType]["bundle/cards.example"] != "" })
	must(t, b.conn.Close()) // node-b goes

	before := p.caStatus().Roots[0].SHA256
	must(t, p.caRotate(adminapi.CARotateRequest{}))
	if err := p.caRotate(adminapi.CARotateRequest{}); err == nil || !strings.Contains(err.Error(), "under way already") {
		t.Errorf("begun twice: %v", err)
	}
	var next string
	a.instructed("both roots, the old one signs", func(in *agentapi.Instructions) bool {
		certs, err := peerrules.ParseRoots(in.Roots)
		if err != nil || len(certs) != 2 || in.SigningRoot != before {
			return false
		}
		next = spiffe.Fingerprint(certs[1])
		return true
	})
	const away = "node node-b: its agent is not connected"
	p.waitsFor("prepared", "node node-a: its agent has not taken up the new root", away)
	hosts := workload("shop", "shop", "10.0.0.1")
	a.report(agentapi.Report{Workloads: []snapshot.Workload{hosts}, Roots: []string{before, next}})
	px.until("both roots sent", func() bool { return px.rest() >= 0 })
	p.waitsFor("prepared", away)

	// A restart in between changes nothing.
	must(t, p.stop())
	p.start()
	a = p.resume(a.credential)
	a.report(agentapi.Report{Workloads: []snapshot.Workload{hosts}, Roots: []string{before, next}})
	p.waitsFor("prepared", "node node-a: its Envoy is not connected", away)
	px = secrets(ads(t, a.conn, nil))
	px.until("configured again", func() bool { return px.has[envoy.SecretType]["bundle/cards.example"] != "" })
	p.waitsFor("prepared", away)

	// By force without node-b. From then on certificates come from the new root.
	must(t, p.caRotate(adminapi.CARotateRequest{Force: true}))
	a.instructed("the new root signs", func(in *agentapi.Instructions) bool { return in.SigningRoot == next })
	if err := p.caRotate(adminapi.CARotateRequest{Cancel: true}); err == nil || !strings.Contains(err.Error(), "the new root signs already") {
		t.Errorf("cancelled too late: %v", err)
	}
	old := agentapi.CertState{SPIFFEID: "spiffe://cards.example/ns/default/sa/shop", Root: before, NotAfter: time.Now().Add(time.Hour)}
	a.report(agentapi.Report{Workloads: []snapshot.Workload{hosts}, Roots: []string{before, next}, Certs: []agentapi.CertState{old}})
	const holds = "node node-b: its agent is not connected, and has certificates under the old root"
	p.waitsFor("activated", "node node-a: replaces its certificates: spiffe://cards.example/ns/default/sa/shop", holds)
	own, err := a.sign("", "")
	must(t, err)
	renewed := old
	renewed.Root = next
	a.report(agentapi.Report{Workloads: []snapshot.Workload{hosts}, Roots: []string{before, next}, Certs: []agentapi.CertState{renewed}})
	p.waitsFor("activated", holds)
	// Whoever was left behind at the first step still comes back, by its old certificate and its old roots.
	back := p.resume(b.credential)
	back.report(agentapi.Report{Workloads: []snapshot.Workload{workload("payments", "payments", "10.0.0.2")}, Roots: []string{before, next}})
	p.waitsFor("done")
	after := p.caStatus()
	if len(after.Roots) != 1 || after.Roots[0].SHA256 != next || !slices.Equal(after.Rotation.Passed, []string{"prepared: node node-b"}) {
		t.Errorf("after: %+v, %+v", after.Roots, after.Rotation)
	}
	// Its connection was opened by a certificate under the old root, and ends with it. A real agent has moved by then.
	wantCode(t, "its conversation", received(t, "its conversation", a.end), codes.Unauthenticated)
	a = p.resume(own)
	a.report(agentapi.Report{
		Workloads: []snapshot.Workload{hosts}, Roots: []string{next}, Certs: []agentapi.CertState{renewed},
	})
	a.instructed("the old root is gone", func(in *agentapi.Instructions) bool {
		certs, err := peerrules.ParseRoots(in.Roots)
		return err == nil && len(certs) == 1
	})
}

// secrets has a proxy ask for the mesh's roots, too.
func secrets(px *proxy) *proxy {
	px.has[envoy.SecretType] = map[string]string{}
	px.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.SecretType, ResourceNamesSubscribe: []string{"bundle/cards.example"}})
	return px
}
