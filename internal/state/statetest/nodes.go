package statetest

import (
	"net/netip"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

func equalAddr(a, b netip.Addr) bool { return a == b }

func node(name string, role snapshot.Role) state.Node {
	return state.Node{
		Node: snapshot.Node{Name: name, Role: role}, Identities: []string{"default/*"},
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

func nodes(t *testing.T, s Store) {
	ctx := t.Context()
	_, err := s.Node(ctx, "n1")
	wantErr(t, err, state.ErrNotFound)
	ok(t, s.AttestNode(ctx, node("n2", snapshot.RoleNode)))
	ok(t, s.AttestNode(ctx, node("n1", snapshot.RoleNode)))
	ok(t, s.SeenNode(ctx, "n2", after(time.Hour)))
	got, err := s.Nodes(ctx)
	ok(t, err)
	n2 := node("n2", snapshot.RoleNode)
	n2.LastSeen = after(time.Hour)
	same(t, got, []state.Node{node("n1", snapshot.RoleNode), n2})

	again := node("n2", snapshot.RoleNode)
	again.Identities, again.Attested, again.LastSeen = []string{"shop/web"}, after(2*time.Hour), after(2*time.Hour)
	ok(t, s.AttestNode(ctx, again))
	one, err := s.Node(ctx, "n2")
	ok(t, err)
	same(t, one, again)
	ok(t, s.DeleteNode(ctx, "n2"))
	_, err = s.Node(ctx, "n2")
	wantErr(t, err, state.ErrNotFound)
}

func registry(t *testing.T, s Store) {
	ctx := t.Context()
	wantErr(t, s.RegisterNode(ctx, "stranger", nil, nil, epoch), state.ErrRevoked)
	ok(t, s.AttestNode(ctx, node("n1", snapshot.RoleNode)))
	ok(t, s.AttestNode(ctx, node("gw", snapshot.RoleGateway)))
	gw := &snapshot.GatewayInfo{ServiceAccount: "gw", InnerAddress: netip.MustParseAddr("10.1.0.2"), OuterAddress: netip.MustParseAddr("192.0.2.1"), InnerAddress6: netip.MustParseAddr("fd00::2")}
	ok(t, s.RegisterNode(ctx, "gw", gw, nil, after(time.Minute)))
	ok(t, s.RegisterNode(ctx, "n1", nil, []snapshot.Workload{workload("default", "gone"), workload("default", "kept")}, after(time.Minute)))
	ok(t, s.RegisterNode(ctx, "n1", nil, []snapshot.Workload{workload("shop", "web"), workload("default", "kept")}, after(time.Minute)))
	got, err := s.Registry(ctx)
	ok(t, err)
	kept, web := workload("default", "kept"), workload("shop", "web")
	kept.Node, web.Node = "n1", "n1"
	want := &snapshot.Registry{
		Nodes:     []snapshot.Node{{Name: "gw", Role: snapshot.RoleGateway, Gateway: gw}, {Name: "n1", Role: snapshot.RoleNode}},
		Workloads: []snapshot.Workload{kept, web},
	}
	same(t, got, want)

	// Two workloads of one name: nothing of the report is taken.
	if err := s.RegisterNode(ctx, "n1", nil, []snapshot.Workload{workload("a", "a"), workload("a", "a")}, epoch); err == nil {
		t.Fatal("two workloads of one name were taken")
	}
	got, err = s.Registry(ctx)
	ok(t, err)
	same(t, got, want)
}

func revokedNode(t *testing.T, s Store) {
	ctx := t.Context()
	wantErr(t, s.RevokeNode(ctx, "n1", epoch), state.ErrNotFound)
	ok(t, s.AttestNode(ctx, node("n1", snapshot.RoleNode)))
	ok(t, s.RegisterNode(ctx, "n1", nil, []snapshot.Workload{workload("shop", "web")}, epoch))
	ok(t, s.AddToken(ctx, token("spare"))) // for n1
	ok(t, s.RevokeNode(ctx, "n1", after(time.Minute)))
	wantErr(t, s.RegisterNode(ctx, "n1", nil, []snapshot.Workload{workload("shop", "web")}, after(time.Hour)), state.ErrRevoked)
	_, err := s.UseToken(ctx, "spare", hash("secret of spare"), "10.0.0.7", after(2*time.Minute))
	wantErr(t, err, state.ErrNotFound)
	got, err := s.Registry(ctx)
	ok(t, err)
	same(t, got, &snapshot.Registry{})
	one, err := s.Node(ctx, "n1")
	ok(t, err)
	same(t, one.Revoked, after(time.Minute))
}

func vips(t *testing.T, s Store) {
	ctx := t.Context()
	v4, v6 := netip.MustParsePrefix("240.240.0.0/16"), netip.MustParsePrefix("fd00:1::/64")
	first, err := s.AllocateVIPs(ctx, v4, []string{"b.default.svc", "a.default.svc"}, epoch)
	ok(t, err)
	if len(first) != 2 || first["a.default.svc"] == first["b.default.svc"] {
		t.Fatalf("addresses given out: %v", first)
	}
	for host, a := range first {
		if !v4.Contains(a) || a.Less(netip.MustParseAddr("240.240.1.0")) {
			t.Errorf("%s got %s, outside the range", host, a)
		}
	}
	second, err := s.AllocateVIPs(ctx, v4, []string{"a.default.svc", "c.default.svc"}, after(time.Hour))
	ok(t, err)
	if second["a.default.svc"] != first["a.default.svc"] || len(second) != 2 {
		t.Errorf("a was %s, then the answer was %v", first["a.default.svc"], second)
	}
	six, err := s.AllocateVIPs(ctx, v6, []string{"a.default.svc"}, epoch)
	ok(t, err)
	if !v6.Contains(six["a.default.svc"]) {
		t.Errorf("IPv6 address %s", six["a.default.svc"])
	}
	ok(t, s.ReleaseVIPs(ctx, []string{"b.default.svc"}))
	all, err := s.VIPs(ctx, v4)
	ok(t, err)
	same(t, all, second)
	_, err = s.AllocateVIPs(ctx, netip.MustParsePrefix("10.0.0.0/24"), []string{"a"}, epoch)
	if err == nil {
		t.Error("a prefix without room was taken")
	}
}

func vipsRunOut(t *testing.T, s Store) {
	ctx := t.Context()
	small := netip.MustParsePrefix("240.240.0.0/22") // 1024 - 256 - 1
	hosts := make([]string, 767)
	for i := range hosts {
		hosts[i] = "host-" + string(rune('a'+i%26)) + "-" + string(rune('a'+i/26))
	}
	got, err := s.AllocateVIPs(ctx, small, hosts, epoch)
	ok(t, err)
	seen := map[netip.Addr]string{}
	for h, a := range got {
		if other, taken := seen[a]; taken {
			t.Fatalf("%s and %s share %s", h, other, a)
		}
		seen[a] = h
	}
	if len(seen) != 767 {
		t.Fatalf("%d addresses, want 767", len(seen))
	}
	if _, err := s.AllocateVIPs(ctx, small, []string{"one-more"}, epoch); err == nil {
		t.Error("an address was found where none is left")
	}
}
