package view

import (
	"net/netip"
	"slices"
	"testing"

	"isthmus.dev/isthmus/internal/fieldtest"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/spiffe"
)

// scene is a mesh of a workload that calls two services and a gateway, with something beside them that neither may
// know.
func scene() *model.Mesh {
	td, _ := spiffe.ParseTrustDomain("cards.example")
	bank, _ := spiffe.ParseTrustDomain("bank.example")
	id := func(ns, sa string) spiffe.ID {
		out, _ := spiffe.Workload(td, ns, sa)
		return out
	}
	port := &model.Port{Number: 80, Protocol: model.HTTP, MTLS: true}
	api, secret := &model.Service{
		Host:  "api",
		Ports: []*model.Port{port},
	}, &model.Service{
		Host:  "secret",
		Ports: []*model.Port{port},
	}
	vault := &model.Service{Host: "vault", DNS: true, Ports: []*model.Port{port}}
	set := func(host string) model.EndpointSet { return model.EndpointSet{Host: host, Port: 80} }
	peer := &model.Peer{Name: "bank", Live: true, TrustDomain: bank}
	till := &model.Workload{
		ID: model.WorkloadID{Namespace: "shop", Name: "till"}, Identity: id("shop", "till"), Node: "n1",
		Inbound: []model.Inbound{{Port: 8080, Protocol: model.HTTP, Hosts: []string{"till"}}},
		Outbound: []model.Outbound{
			{Service: api, Port: port, Routes: model.RoutesTo(model.ToService(api, port))},
			{Service: vault, Port: port, Routes: model.RoutesTo(model.ToService(vault, port))},
		},
	}
	return &model.Mesh{
		TrustDomain: td, Gateways: []string{id("isthmus-system", "gateway").String()},
		Services: map[model.ServiceID]*model.Service{
			{Name: "api"}:    api,
			{Name: "secret"}: secret,
			{Name: "vault"}:  vault,
		},
		Endpoints: map[model.EndpointSet][]model.Endpoint{
			set("api"): {
				{Port: 8080},
			}, set("secret"): {{Port: 8080}}, set("vault"): {{Host: "vault.example", Port: 443}},
		},
		Roots: map[string][]byte{
			"cards.example": []byte("own"),
			"bank.example":  []byte("theirs"),
			"shop.example":  []byte("others"),
		},
		Proxies: map[string]*model.Proxy{
			"n1": {Name: "n1", Workloads: []*model.Workload{till}},
			"gw": {Name: "gw", Gateway: &model.Gateway{Federation: &model.Federation{
				Peers:   []*model.Peer{peer},
				Exports: []*model.Export{{Name: "shop/api", Peer: peer, Service: api, Port: port, SNI: "api.fed"}},
				Imports: []*model.Import{{
					Host: "pay", Port: 80, Callers: []string{"spiffe://cards.example/ns/shop/sa/till"},
					Remotes: []model.Remote{{Peer: peer, SNI: "pay.fed", Weight: 1}},
				}},
			}}},
			"edge": {Name: "edge", Gateway: &model.Gateway{}},
		},
	}
}

// What each proxy is told of endpoints and roots, and no more.
func TestForCutsToWhatConcernsAProxy(t *testing.T) {
	mesh := scene()
	for _, c := range []struct {
		proxy                 string
		sets, resolved, roots []string
	}{
		{"n1", []string{"api"}, []string{"vault"}, []string{"cards.example"}},
		{"gw", []string{"api", "import/pay"}, nil, []string{"bank.example", "cards.example"}},
		{"edge", nil, nil, []string{"cards.example"}}, // a gateway without boundaries
	} {
		v := For(mesh, c.proxy)
		var sets, resolved, roots []string
		for _, s := range v.Sets {
			sets = append(sets, s.Host)
		}
		for s := range v.Resolved {
			resolved = append(resolved, s.Host)
		}
		for td := range v.Roots {
			roots = append(roots, td)
		}
		slices.Sort(roots)
		if !slices.Equal(sets, c.sets) || !slices.Equal(resolved, c.resolved) || !slices.Equal(roots, c.roots) {
			t.Errorf("%s is told of the sets %v, the names %v and the roots of %v", c.proxy, sets, resolved, roots)
		}
	}
	if For(mesh, "stranger") != nil {
		t.Error("a stranger is told something")
	}
}

// Whatever a proxy's configuration is made of makes a view another one; what is somebody else's business does not.
func TestEqual(t *testing.T) {
	federation := func(m *model.Mesh) *model.Federation { return m.Proxies["gw"].Gateway.Federation }
	workload := func(m *model.Mesh) *model.Workload { return m.Proxies["n1"].Workloads[0] }
	for _, c := range []struct {
		name, proxy string
		change      func(*model.Mesh)
		equal       bool
	}{
		{"nothing", "n1", func(*model.Mesh) {}, true},
		{"nothing at the gateway", "gw", func(*model.Mesh) {}, true},
		{"the names of a port", "n1", func(m *model.Mesh) { workload(m).Inbound[0].Hosts = []string{"desk"} }, false},
		{"where a route leads", "n1", func(m *model.Mesh) {
			workload(m).Outbound[0].Routes[0].To[0].Groups = nil
		}, false},
		{"why nobody serves", "n1", func(m *model.Mesh) {
			workload(m).Outbound[0].Routes[0].To[0].Absent = []string{"peer bank is suspended"}
		}, false},
		{"a name that the proxy resolves", "n1", func(m *model.Mesh) {
			m.Endpoints[model.EndpointSet{Host: "vault", Port: 80}][0].Host = "other.example"
		}, false},
		{"a gateway", "n1", func(m *model.Mesh) { m.Gateways = nil }, false},
		{"an endpoint", "n1", func(m *model.Mesh) {
			m.Endpoints[model.EndpointSet{Host: "api", Port: 80}][0].Port = 9
		}, true},
		{"who else may call", "n1", func(m *model.Mesh) {
			other := *workload(m)
			other.ID.Name = "other"
			m.Workloads = map[model.WorkloadID]*model.Workload{other.ID: &other}
		}, true},
		{"which workload elsewhere serves what is exported", "gw", func(m *model.Mesh) {
			federation(m).Exports[0].Port.Workloads = []model.WorkloadID{{Name: "x"}}
		}, true},
		{"who serves what is exported", "gw", func(m *model.Mesh) {
			federation(m).Exports[0].Port.Identities = []string{"x"}
		}, false},
		{"a rule of an export", "gw", func(m *model.Mesh) {
			federation(m).Exports[0].Rules = []model.ExportRule{{}}
		}, false},
		{"a caller of an import", "gw", func(m *model.Mesh) { federation(m).Imports[0].Callers = nil }, false},
		{"where a peer is", "gw", func(m *model.Mesh) {
			federation(m).Peers[0].Addresses = []string{"192.0.2.1:15443"}
		}, false},
		{"an invitation", "gw", func(m *model.Mesh) { federation(m).Invites = []model.Invite{{ID: "1"}} }, false},
		{"an acceptance", "gw", func(m *model.Mesh) { federation(m).Bootstraps = []model.Bootstrap{{ID: "1"}} }, false},
		{"the boundary", "gw", func(m *model.Mesh) { m.Proxies["gw"].Gateway.Federation = nil }, false},
		{"a peer's roots", "gw", func(m *model.Mesh) { m.Roots["bank.example"] = []byte("new") }, false},
		{"a stranger's roots", "gw", func(m *model.Mesh) { m.Roots["shop.example"] = []byte("new") }, true},
	} {
		before, after := scene(), scene()
		c.change(after)
		if got := Equal(For(before, c.proxy), For(after, c.proxy)); got != c.equal {
			t.Errorf("%s: equal is %v", c.name, got)
		}
	}
}

// A field of the model that these comparisons forget would be a change that no proxy is told of.
func TestEveryFieldIsCompared(t *testing.T) {
	for _, wrong := range fieldtest.Unseen(Equal, map[string]string{
		"View.Proxy":       "its parts are fields of the View; the name stays",
		"Workload.Node":    "decides which proxy serves it",
		"Workload.Sidecar": "decides which proxy serves it",
		"Service.Ports":    "each Outbound and Export has its own",
		"Service.ExportTo": "decides who is a caller",
		"Port.Workloads":   "those of this proxy are in View.Local",
	}) {
		t.Error("Equal: " + wrong)
	}
	elsewhere := "what of it reaches a node is in the pointer of its Proxy"
	for _, wrong := range fieldtest.Unseen(SameGlobals, map[string]string{
		"Mesh.Name": "no proxy is told", "Mesh.RootNamespace": "no proxy is told", "Mesh.Namespaces": "no proxy is told",
		"Mesh.Services": elsewhere, "Mesh.Workloads": elsewhere, "Mesh.Proxies": elsewhere, "Mesh.Endpoints": elsewhere,
		"Mesh.Peers": elsewhere, "Mesh.Exports": elsewhere, "Mesh.Imports": elsewhere, "Mesh.Invites": elsewhere,
		"Mesh.Bootstraps": elsewhere,
	}) {
		t.Error("SameGlobals: " + wrong)
	}
}

// A proxy is told of the endpoints of every destination of every route, and serves those that are its own itself.
func TestEveryRouteOfAnOutbound(t *testing.T) {
	mesh := scene()
	mesh.HandOver = true
	till := mesh.Proxies["n1"].Workloads[0]
	till.Addrs = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	api := till.Outbound[0]
	subset := func(labels string, by ...model.WorkloadID) model.Destination {
		d := model.ToService(api.Service, &model.Port{Number: 80, Protocol: model.HTTP, MTLS: true, Workloads: by})
		d.Set.Subset = labels
		return d
	}
	nobody := model.Destination{Service: api.Service, Port: api.Port, Set: model.EndpointSet{Host: "gone", Port: 80}}
	till.Outbound[0].Routes = []*model.Route{
		{
			Match: &model.RequestMatch{Path: model.Match{Value: "/new"}},
			To:    []model.Destination{subset("version=v2", till.ID), nobody},
		},
		{
			Actions: &model.Actions{Mirrors: []model.Mirror{{To: subset("version=v3")}}},
			To:      []model.Destination{subset("version=v1", model.WorkloadID{Namespace: "shop", Name: "elsewhere"})},
		},
	}
	v := For(mesh, "n1")
	if want := []model.EndpointSet{
		{Host: "api", Port: 80, Subset: "version=v1"},
		{Host: "api", Port: 80, Subset: "version=v2", Proxy: "n1"},
		{Host: "api", Port: 80, Subset: "version=v3"},
	}; !slices.Equal(v.Sets, want) {
		t.Errorf("told of %v, want %v", v.Sets, want)
	}
	if !v.Called(till) {
		t.Error("calls to the subset that this proxy serves leave it")
	}
}
