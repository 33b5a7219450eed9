package rotation

import (
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/xds"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

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
	gone.Revoked = noon
	both := agentapi.Report{Roots: []string{"new", "old"}}
	waits := untrusting(rot, []state.Node{
		node("away", snapshot.RoleNode), node("edge", snapshot.RoleGateway), node("empty", snapshot.RoleNode), gone,
		node("lone", snapshot.RoleNode), node("nay", snapshot.RoleNode), node("ready", snapshot.RoleNode),
		node("slow", snapshot.RoleNode),
		node("split", snapshot.RoleNode),
	}, map[string]agentapi.Report{
		"edge": {Roots: []string{"old"}}, "empty": both, "lone": both, "nay": both, "ready": both, "slow": both,
		"split": both,
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
	rot := ca.Rotation{Step: ca.Activated, Old: "old", New: "new", Since: noon}
	gone := node("gone", snapshot.RoleNode)
	gone.Revoked = noon
	at := func(m int) time.Time { return noon.Add(time.Duration(m) * time.Minute) }
	cert := func(id, root string) agentapi.CertState {
		return agentapi.CertState{SPIFFEID: id, Root: root, NotAfter: at(60)}
	}
	waits := undrained(rot, []state.Node{
		node("away", snapshot.RoleNode), node("busy", snapshot.RoleGateway), node("done", snapshot.RoleNode),
		node("ended", snapshot.RoleNode), gone,
		node("many", snapshot.RoleNode), node("over", snapshot.RoleNode),
	}, []state.CertUse{
		{SPIFFEID: "spiffe://cards.example/isthmus/admin/alice", NotAfter: at(90)},
		{SPIFFEID: "spiffe://cards.example/isthmus/control", NotAfter: at(90)}, // its own: replaced already
		{Node: "away", SPIFFEID: "spiffe://cards.example/ns/a/sa/b", NotAfter: at(10)},
		{Node: "away", SPIFFEID: "spiffe://cards.example/isthmus/node/away", NotAfter: at(40)},
		{Node: "done", SPIFFEID: "spiffe://cards.example/ns/a/sa/b", NotAfter: at(10)}, // valid still, and not in use
		{Node: "gone", SPIFFEID: "spiffe://cards.example/ns/a/sa/b", NotAfter: at(10)},
	}, map[string]agentapi.Report{
		"busy": {Certs: []agentapi.CertState{
			cert("spiffe://cards.example/x", "old"),
			cert("spiffe://cards.example/y", "new"),
		}},
		"done": {Certs: []agentapi.CertState{cert("spiffe://cards.example/x", "new")}},
		"many": {Certs: []agentapi.CertState{
			cert("a", "old"), cert("b", "old"), cert("c", "old"), cert("d", "old"),
			cert("e", "old"),
		}},
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
		told federation.BundleDelivery
		want string
	}{
		{federation.BundleDelivery{InForce: true}, ""},
		{
			federation.BundleDelivery{ByHand: true, Fetched: noon},
			"takes this mesh's roots from its own files only: give it a new isthmus peer manifest",
		},
		{federation.BundleDelivery{}, "has not fetched the new bundle yet"},
		{
			federation.BundleDelivery{Error: "unreachable"},
			"has not fetched the new bundle, and cannot be told of it: unreachable",
		},
		{
			federation.BundleDelivery{Fetched: noon.Add(-time.Second)},
			"has fetched the new bundle; its gateways have not all acknowledged it",
		},
		{
			federation.BundleDelivery{Fetched: noon.Add(-time.Hour)},
			"has fetched the new bundle; its gateways have not all acknowledged it",
		},
		{
			federation.BundleDelivery{Fetched: noon.Add(-time.Second), Error: "404"},
			"has fetched the new bundle, and cannot be asked whether its gateways have it: 404",
		},
		{federation.BundleDelivery{Fetched: noon.Add(-30 * time.Second), Error: "404"}, ""},
	} {
		if got := peerLacks(c.told, noon); got != c.want {
			t.Errorf("%+v: %q, want %q", c.told, got, c.want)
		}
	}
}

func TestSettled(t *testing.T) {
	r := &Rotator{}
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
		if got := r.settled(c.step, c.clear, noon.Add(c.after)); got != c.want {
			t.Errorf("%d, %s after %s: %v", i, c.step, c.after, got)
		}
	}
}

func TestExpected(t *testing.T) {
	rot := ca.Rotation{Step: ca.Activated, Since: noon}
	for _, c := range []struct {
		step  ca.Step
		waits []adminapi.CAWait
		want  time.Time
	}{
		{ca.Activated, nil, noon.Add(3 * time.Second)},
		{
			ca.Activated,
			[]adminapi.CAWait{{Until: noon.Add(time.Minute)}, {Until: noon.Add(time.Second)}},
			noon.Add(63 * time.Second),
		},
		{ca.Prepared, []adminapi.CAWait{{Until: noon.Add(time.Minute)}, {}}, time.Time{}},
		{ca.Done, nil, time.Time{}},
	} {
		rot.Step = c.step
		if got := Expected(rot, c.waits); !got.Equal(c.want) {
			t.Errorf("%s %v: %s, want %s", c.step, c.waits, got, c.want)
		}
	}
}
