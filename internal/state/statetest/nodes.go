package statetest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/vip"
)

func equalAddr(a, b netip.Addr) bool { return a == b }

func node(name string, role snapshot.Role) state.Node {
	return state.Node{
		Node: snapshot.Node{Name: name, Role: role}, Generation: "generation of " + name,
		Grant:    grant.Grant{Identities: []string{"default/*"}},
		Attested: epoch, LastSeen: epoch,
	}
}

func workload(namespace, name string) snapshot.Workload {
	return snapshot.Workload{
		Name: name, Namespace: namespace, ServiceAccount: "payments", Labels: map[string]string{"app": name},
		Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.5")}, Netns: "/run/netns/" + name,
		Ports: []snapshot.WorkloadPort{{Name: "http", Number: 8080}}, Ready: true,
	}
}

func registration(n snapshot.Node, workloads []snapshot.Workload) state.Registration {
	return state.Registration{Node: n, Conversation: 1, Workloads: workloads}
}

func nodes(t *testing.T, s state.Store) {
	ctx := t.Context()
	_, err := s.Node(ctx, "n1")
	wantErr(t, err, state.ErrNotFound)
	ok(t, s.AttestNode(ctx, node("n2", snapshot.RoleNode)))
	ok(t, s.AttestNode(ctx, node("n1", snapshot.RoleNode)))
	got, err := s.Nodes(ctx)
	ok(t, err)
	same(t, got, []state.Node{node("n1", snapshot.RoleNode), node("n2", snapshot.RoleNode)})

	again := node("n2", snapshot.RoleNode)
	again.Generation, again.Grant.Identities, again.Attested, again.LastSeen = "a later one", []string{"shop/web"},
		after(2*time.Hour), after(2*time.Hour)
	ok(t, s.AttestNode(ctx, again))
	one, err := s.Node(ctx, "n2")
	ok(t, err)
	same(t, one, again)
	one, err = s.NodeOf(ctx, again.Generation)
	ok(t, err)
	same(t, one, again)
	_, err = s.NodeOf(ctx, "generation of n2")
	wantErr(t, err, state.ErrNotFound)
}

func registry(t *testing.T, s state.Store) {
	ctx := t.Context()
	wantErr(t, s.RegisterNode(ctx, registration(snapshot.Node{Name: "stranger"}, nil), epoch), state.ErrRevoked)
	ok(t, s.AttestNode(ctx, node("n1", snapshot.RoleNode)))
	ok(t, s.AttestNode(ctx, node("gw", snapshot.RoleGateway)))
	gw := &snapshot.GatewayInfo{
		ServiceAccount: "gw", InnerAddress: netip.MustParseAddr("10.1.0.2"),
		OuterAddress: netip.MustParseAddr("192.0.2.1"), InnerAddress6: netip.MustParseAddr("fd00::2"),
	}
	ok(t, s.RegisterNode(ctx, registration(snapshot.Node{
		Name: "gw", Gateway: gw,
		Reached: netip.MustParseAddr("10.0.0.9"), Builtin: "v1",
	}, nil), after(time.Minute)))
	ok(t, s.RegisterNode(ctx, registration(snapshot.Node{Name: "n1"},
		[]snapshot.Workload{workload("default", "gone"), workload("default", "kept")}), after(time.Minute)))
	ok(t, s.RegisterNode(ctx, registration(snapshot.Node{Name: "n1"},
		[]snapshot.Workload{workload("shop", "web"), workload("default", "kept")}), after(time.Minute)))
	got, err := s.Registry(ctx)
	ok(t, err)
	kept, web := workload("default", "kept"), workload("shop", "web")
	kept.Node, web.Node = "n1", "n1"
	want := &snapshot.Registry{
		Nodes: []snapshot.Node{
			{
				Name: "gw", Role: snapshot.RoleGateway, Gateway: gw, Reached: netip.MustParseAddr("10.0.0.9"),
				Builtin: "v1",
			},
			{Name: "n1", Role: snapshot.RoleNode},
		},
		Workloads: []snapshot.Workload{kept, web},
	}
	same(t, got, want)

	// Two workloads of the same name: the report is rejected.
	if err := s.RegisterNode(ctx, registration(snapshot.Node{Name: "n1"},
		[]snapshot.Workload{workload("a", "a"), workload("a", "a")}), epoch); err == nil {
		t.Fatal("two workloads of one name were taken")
	}
	got, err = s.Registry(ctx)
	ok(t, err)
	same(t, got, want)
}

// namesAndAddresses tests that nodes cannot have the same workload names or addresses, and that workloads of one node
// may share an address.
func namesAndAddresses(t *testing.T, s state.Store) {
	ctx := t.Context()
	for _, name := range []string{"n1", "n2"} {
		ok(t, s.AttestNode(ctx, node(name, snapshot.RoleNode)))
	}
	at := func(w snapshot.Workload, address string) snapshot.Workload {
		w.Addresses = []netip.Addr{netip.MustParseAddr(address)}
		return w
	}
	a, b := at(workload("default", "a"), "10.1.0.1"), at(workload("default", "b"), "10.1.0.1")
	register := func(node string, w ...snapshot.Workload) error {
		return s.RegisterNode(ctx, registration(snapshot.Node{Name: node}, w), epoch)
	}
	ok(t, register("n1", a, b))
	wantErr(t, register("n2", at(a, "10.1.0.2")), state.ErrExists)
	wantErr(t, register("n2", at(workload("default", "c"), "10.1.0.1")), state.ErrExists)
	ok(t, register("n1", b))
	wantErr(t, register("n2", at(workload("default", "c"), "10.1.0.1")), state.ErrExists)
	ok(t, register("n2", at(a, "10.1.0.2")))
	ok(t, s.RevokeNode(ctx, "n1", epoch))
	ok(t, register("n2", a, b))
	got, err := s.Registration(ctx, "n2")
	ok(t, err)
	a.Node, b.Node = "n2", "n2"
	same(t, got, state.Registration{
		Node: snapshot.Node{Name: "n2", Role: snapshot.RoleNode}, Conversation: 1,
		Workloads: []snapshot.Workload{a, b}, Generation: "generation of n2",
	})
	_, err = s.Registration(ctx, "n1")
	wantErr(t, err, state.ErrNotFound)
}

// conversations tests that reports of an earlier session do not count after the node has reported in a later one.
func conversations(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.AttestNode(ctx, node("n1", snapshot.RoleNode)))
	in := func(n uint64, name string) state.Registration {
		return state.Registration{
			Node: snapshot.Node{Name: "n1"}, Conversation: n,
			Workloads: []snapshot.Workload{workload("default", name)},
		}
	}
	_, err := s.BeginConversation(ctx, "nobody", "g")
	wantErr(t, err, state.ErrNotFound)
	for want := uint64(1); want < 4; want++ {
		n, err := s.BeginConversation(ctx, "n1", node("n1", snapshot.RoleNode).Generation)
		ok(t, err)
		same(t, n, want)
	}
	ok(t, s.RegisterNode(ctx, in(7, "old"), epoch))
	ok(t, s.RegisterNode(ctx, in(7, "again"), epoch))
	ok(t, s.RegisterNode(ctx, in(8, "new"), epoch))
	wantErr(t, s.RegisterNode(ctx, in(7, "old"), epoch), state.ErrSuperseded)
	got, err := s.Registration(ctx, "n1")
	ok(t, err)
	same(t, []string{got.Workloads[0].Name, fmt.Sprint(len(got.Workloads))}, []string{"new", "1"})

	agent := state.Agent{Node: "n1", Conversation: 8, Holder: "one", Report: []byte("{}")}
	ok(t, s.PutAgent(ctx, agent))
	agent.Report = []byte("{1}")
	ok(t, s.PutAgent(ctx, agent))
	late := agent
	late.Conversation, late.Holder = 7, "another"
	wantErr(t, s.PutAgent(ctx, late), state.ErrSuperseded)
	ok(t, s.EndAgent(ctx, "n1", 7))
	one, err := s.Agent(ctx, "n1")
	ok(t, err)
	same(t, one, agent)
	all, err := s.Agents(ctx)
	ok(t, err)
	same(t, all, []state.Agent{agent})
	ok(t, s.EndAgent(ctx, "n1", 8))
	_, err = s.Agent(ctx, "n1")
	wantErr(t, err, state.ErrNotFound)
}

// stolenConversation tests that once a node has joined again, the holder of its former identity can report nothing, in
// its session or a new one, through any control plane.
func stolenConversation(t *testing.T, s state.Store) {
	ctx := t.Context()
	stolen := node("n1", snapshot.RoleNode)
	ok(t, s.AttestNode(ctx, stolen))
	n, err := s.BeginConversation(ctx, "n1", stolen.Generation)
	ok(t, err)
	ok(t, s.RevokeNode(ctx, "n1", epoch))
	again := stolen
	again.Generation = "again"
	ok(t, s.AttestNode(ctx, again))
	wantErr(t, s.RegisterNode(ctx, state.Registration{Node: snapshot.Node{Name: "n1"}, Conversation: n}, epoch),
		state.ErrSuperseded)
	_, err = s.BeginConversation(ctx, "n1", stolen.Generation)
	wantErr(t, err, state.ErrNotFound)
	n, err = s.BeginConversation(ctx, "n1", again.Generation)
	ok(t, err)
	ok(t, s.RegisterNode(ctx, state.Registration{Node: snapshot.Node{Name: "n1"}, Conversation: n}, epoch))
}

func revokedNode(t *testing.T, s state.Store) {
	ctx := t.Context()
	wantErr(t, s.RevokeNode(ctx, "n1", epoch), state.ErrNotFound)
	ok(t, s.AttestNode(ctx, node("n1", snapshot.RoleNode)))
	ok(t, s.RegisterNode(ctx, registration(snapshot.Node{Name: "n1"}, []snapshot.Workload{workload("shop", "web")}),
		epoch))
	ok(t, s.AddToken(ctx, token("spare"))) // for n1
	ok(t, s.RevokeNode(ctx, "n1", after(time.Minute)))
	ok(t, s.RevokeNode(ctx, "n1", after(time.Hour))) // again
	wantErr(t, s.RegisterNode(ctx, registration(snapshot.Node{Name: "n1"},
		[]snapshot.Workload{workload("shop", "web")}), after(time.Hour)), state.ErrRevoked)
	_, err := s.UseToken(ctx, "spare", hash("secret of spare"), "10.0.0.7", after(2*time.Minute))
	wantErr(t, err, state.ErrNotFound)
	got, err := s.Registry(ctx)
	ok(t, err)
	same(t, got, &snapshot.Registry{})
	one, err := s.Node(ctx, "n1")
	ok(t, err)
	same(t, one.Revoked, after(time.Minute))
}

// revokedWhileJoining tests that a node whose token was used before its revocation is not admitted afterwards.
func revokedWhileJoining(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.AttestNode(ctx, node("n1", snapshot.RoleNode)))
	ok(t, s.AddToken(ctx, token("used before"))) // for n1
	_, err := s.UseToken(ctx, "used before", hash("secret of used before"), "10.0.0.7", after(time.Minute))
	ok(t, err)
	ok(t, s.RevokeNode(ctx, "n1", after(2*time.Minute)))
	late := node("n1", snapshot.RoleNode)
	late.Generation = "used before"
	wantErr(t, s.AttestNode(ctx, late), state.ErrRevoked)
	one, err := s.Node(ctx, "n1")
	ok(t, err)
	same(t, one.Revoked, after(2*time.Minute))
	late.Generation = "made after"
	ok(t, s.AttestNode(ctx, late))
	one, err = s.Node(ctx, "n1")
	ok(t, err)
	same(t, one.Revoked, time.Time{})
}

func admins(t *testing.T, s state.Store) {
	ctx := t.Context()
	_, err := s.Admin(ctx, "a1")
	wantErr(t, err, state.ErrNotFound)
	admin := func(generation, name string, ends time.Duration) state.Admin {
		return state.Admin{
			Generation: generation, Name: name, Serial: "40" + generation, Created: epoch, MadeBy: "user root (uid 0)",
			NotAfter: after(ends),
		}
	}
	for _, a := range []state.Admin{
		admin("c", "carol", time.Hour), admin("a2", "alice", time.Hour), admin("a1", "alice", time.Minute),
		admin("a3", "alice", time.Hour),
	} {
		ok(t, s.AddAdmin(ctx, a))
	}
	ok(t, s.RevokeAdmins(ctx, "", "a3", after(time.Second)))
	ok(t, s.RevokeAdmins(ctx, "alice", "", after(2*time.Minute)))
	revoked := func(a state.Admin, at time.Duration) state.Admin { a.Revoked = after(at); return a }
	all, err := s.Admins(ctx)
	ok(t, err)
	same(t, all, []state.Admin{
		admin("a1", "alice", time.Minute), // already expired
		revoked(admin("a2", "alice", time.Hour), 2*time.Minute), revoked(admin("a3", "alice", time.Hour), time.Second),
		admin("c", "carol", time.Hour),
	})
	ok(t, s.Prune(ctx, after(30*time.Minute)))
	all, err = s.Admins(ctx)
	ok(t, err)
	if len(all) != 3 {
		t.Errorf("%d are kept, want 3", len(all))
	}
}

func vips(t *testing.T, s state.Store) {
	ctx := t.Context()
	row := func(host, address string, gone time.Time) vip.Row {
		return vip.Row{Host: vip.Host{Name: host, Namespace: "default"}, Addr: netip.MustParseAddr(address), Gone: gone}
	}
	a, b := row("a.default.svc", "240.240.1.1", time.Time{}), row("b.default.svc", "240.240.1.2", time.Time{})
	ok(t, s.SaveVIPs(ctx, vip.Change{Put: []vip.Row{a, b}}))
	got, err := s.VIPs(ctx)
	ok(t, err)
	same(t, got, []vip.Row{a, b})
	b.Gone = after(time.Minute)
	a.Namespace = "other"
	ok(t, s.SaveVIPs(ctx, vip.Change{Put: []vip.Row{b, a}}))
	got, err = s.VIPs(ctx)
	ok(t, err)
	same(t, got, []vip.Row{a, b})
	moved := row("a.default.svc", "240.240.1.9", time.Time{})
	wantErr(t, s.SaveVIPs(ctx, vip.Change{Put: []vip.Row{moved}}), state.ErrExists) // a host keeps its address
	c := row("c.default.svc", "240.240.1.2", time.Time{})                           // b's
	wantErr(t, s.SaveVIPs(ctx, vip.Change{Put: []vip.Row{c}}), state.ErrExists)
	for range 2 { // save again what failed half way
		ok(t, s.SaveVIPs(ctx, vip.Change{Drop: []string{"b.default.svc"}, Put: []vip.Row{c}}))
	}
	got, err = s.VIPs(ctx)
	ok(t, err)
	same(t, got, []vip.Row{a, c})
	var many []vip.Row
	for i := range 2500 {
		many = append(many,
			row(fmt.Sprintf("h%04d.default.svc", i),
				netip.AddrFrom4([4]byte{240, 240, byte(8 + i/256), byte(i)}).String(), time.Time{}))
	}
	ok(t, s.SaveVIPs(ctx, vip.Change{Put: many}))
	got, err = s.VIPs(ctx)
	ok(t, err)
	same(t, got, append([]vip.Row{a, c}, many...))
}
