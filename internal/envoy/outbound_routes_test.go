package envoy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/view"
)

// routed is a mesh of one workload, shop/till, that calls reviews:80. The service has endpoints of two versions.
func routed(protocol model.Protocol, routes ...*model.Route) *model.Mesh {
	td, _ := spiffe.ParseTrustDomain("m.example")
	id, _ := spiffe.Workload(td, "shop", "till")
	reviews := serviceOf("reviews", 1)
	till := &model.Workload{
		ID: model.WorkloadID{Namespace: "shop", Name: "till"}, Identity: id, Node: "n1",
		Addrs:    []netip.Addr{netip.MustParseAddr("10.0.0.9")},
		Outbound: []model.Outbound{{Service: reviews, Port: portOf(protocol, "v1", "v2"), Routes: routes}},
	}
	v1, v2 := model.Endpoint{Addr: netip.MustParseAddr("10.0.0.1"), Port: 8080, Healthy: true, Weight: 1},
		model.Endpoint{Addr: netip.MustParseAddr("10.0.0.2"), Port: 8080, Healthy: true, Weight: 1}
	return &model.Mesh{
		TrustDomain: td, Roots: map[string][]byte{"m.example": []byte("roots")},
		Proxies: map[string]*model.Proxy{"n1": {Name: "n1", Workloads: []*model.Workload{till}, Builtin: ours.version}},
		Endpoints: map[model.EndpointSet][]model.Endpoint{
			{Host: "reviews", Port: 80}:                       {v1, v2},
			{Host: "reviews", Port: 80, Subset: "version=v1"}: {v1},
			{Host: "reviews", Port: 80, Subset: "version=v2"}: {v2},
		},
	}
}

func serviceOf(host string, n byte) *model.Service {
	return &model.Service{Host: host, VIP: netip.AddrFrom4([4]byte{240, 240, 0, n})}
}

func portOf(protocol model.Protocol, accounts ...string) *model.Port {
	p := &model.Port{Number: 80, Protocol: protocol, MTLS: true}
	for _, a := range accounts {
		p.Identities = append(p.Identities, "spiffe://m.example/ns/shop/sa/"+a)
	}
	return p
}

// all and version are the destinations of the mesh: the service, and the endpoints of one version.
func all(protocol model.Protocol, weight uint32) model.Destination {
	d := model.ToService(serviceOf("reviews", 1), portOf(protocol, "v1", "v2"))
	d.Weight = weight
	return d
}

func version(protocol model.Protocol, v string, weight uint32) model.Destination {
	d := model.ToService(serviceOf("reviews", 1), portOf(protocol, v))
	d.Set.Subset, d.Weight = "version="+v, weight
	return d
}

// absent is a destination that nobody serves.
func absent(weight uint32) model.Destination {
	return model.Destination{
		Service: serviceOf("away", 2), Port: portOf(model.HTTP), Weight: weight, Changing: true,
		Absent: []string{"peer bank is suspended"},
	}
}

// A call with a header leads to a new version, under another path. Of the other calls a tenth does.
func TestStoryOfTwoRoutesAndASubset(t *testing.T) {
	mesh := routed(model.HTTP,
		&model.Route{
			Match: &model.RequestMatch{
				Path:    model.Match{Kind: model.Prefix, Value: "/new/"},
				Headers: []model.NamedMatch{{Name: "x-tester", Match: model.Match{Value: "yes"}}},
			},
			Actions: &model.Actions{Rewrite: model.Rewrite{Path: "/"}, Timeout: 5 * time.Second},
			To:      []model.Destination{version(model.HTTP, "v2", 0)},
		},
		&model.Route{To: []model.Destination{all(model.HTTP, 9), version(model.HTTP, "v2", 1)}},
	)
	v := view.For(mesh, "n1")
	res := Build(v)

	var got []string
	for _, r := range routesIn(t, res) {
		got = append(got, inWords(r))
	}
	want := []string{
		"/new/* x-tester :method → {version=v2} in 5s as /, 8 retries with reset",
		"/new/* x-tester → {version=v2} in 5s as /, 8 retries",
		"/* :method → 9 × , 1 × {version=v2}, 8 retries with reset",
		"/* → 9 × , 1 × {version=v2}, 8 retries",
	}
	if !slices.Equal(got, want) {
		t.Errorf("routes:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	servers := map[string][]string{}
	for _, r := range res.ByType[ClusterType] {
		if c := read[*clusterv3.Cluster](t, r); c.GetEdsClusterConfig() != nil {
			servers[c.Name+" "+c.EdsClusterConfig.ServiceName] = serversOf(t, c)
		}
	}
	if want := map[string][]string{
		"shop/till>reviews:80 reviews:80": {
			"spiffe://m.example/ns/shop/sa/v1", "spiffe://m.example/ns/shop/sa/v2",
		},
		"shop/till>reviews:80{version=v2} reviews:80{version=v2}": {"spiffe://m.example/ns/shop/sa/v2"},
	}; !reflect.DeepEqual(servers, want) {
		t.Errorf("clusters %v, want %v", servers, want)
	}

	if want := []model.EndpointSet{
		{Host: "reviews", Port: 80}, {Host: "reviews", Port: 80, Subset: "version=v2"},
	}; !slices.Equal(res.Sets, want) {
		t.Errorf("told of %v, want %v", res.Sets, want)
	}
	eds := read[*endpointv3.ClusterLoadAssignment](t, EndpointsFor(v, res.Sets[1], mesh.Endpoints))
	var at []string
	for _, e := range eds.GetEndpoints()[0].LbEndpoints {
		at = append(at, e.GetEndpoint().Address.GetSocketAddress().Address)
	}
	if want := []string{"10.0.0.2"}; eds.ClusterName != "reviews:80{version=v2}" || len(eds.Endpoints) != 1 ||
		!slices.Equal(at, want) {
		t.Errorf("endpoints of the subset: %v", eds)
	}
}

// What one route becomes.
func TestRouteInEnvoy(t *testing.T) {
	to := []model.Destination{version(model.HTTP, "v1", 0)}
	plain := model.Destination{
		Service: serviceOf("old", 3), Port: &model.Port{Number: 80, Protocol: model.HTTP},
		Set: model.EndpointSet{Host: "old", Port: 80}, Groups: []model.Group{{Name: model.OwnEndpoints}}, Weight: 1,
	}
	gateways := model.Destination{
		Service: serviceOf("pay", 4), Port: portOf(model.HTTP), Changing: true,
		Set: model.EndpointSet{Host: "gateway", Port: 1}, Groups: []model.Group{{Name: model.OwnGateways}}, Weight: 1,
	}
	mixed := gateways
	mixed.Groups = []model.Group{{Name: model.OwnEndpoints}, {Name: model.OwnGateways, Priority: 1}}
	mixed.Set.Host = "mixed/pay"
	match := func(m model.RequestMatch) *model.Route { return &model.Route{Match: &m, To: to} }
	do := func(a model.Actions) *model.Route { return &model.Route{Actions: &a, To: to} }
	for name, c := range map[string]struct {
		route *model.Route
		want  []string
	}{
		"exact path": {
			match(model.RequestMatch{Path: model.Match{Value: "/a"}}),
			[]string{"/a :method → {version=v1}, 8 retries with reset", "/a → {version=v1}, 8 retries"},
		},
		"suffix": {
			match(model.RequestMatch{Path: model.Match{Kind: model.Suffix, Value: ".js"}}),
			[]string{`~\C*\.js :method → {version=v1}, 8 retries with reset`, `~\C*\.js → {version=v1}, 8 retries`},
		},
		"template": {
			match(model.RequestMatch{Path: model.Match{Kind: model.Template, Value: "/a/{*}"}}),
			[]string{
				"~/a/[A-Za-z0-9\\-._~%!$&'()+,:@=]+ :method → {version=v1}, 8 retries with reset",
				"~/a/[A-Za-z0-9\\-._~%!$&'()+,:@=]+ → {version=v1}, 8 retries",
			},
		},
		"a pattern that is none": {
			match(model.RequestMatch{Path: model.Match{Kind: model.Template, Value: "a/{*}"}}), nil,
		},
		"everything at once": {
			match(model.RequestMatch{
				Method: model.Match{Value: "PUT"}, Authority: model.Match{Kind: model.Suffix, Value: ".example"},
				NotHeaders: []model.NamedMatch{{Name: "x-old", Match: model.Match{Kind: model.Present}}},
				Query:      []model.NamedMatch{{Name: "q", Match: model.Match{Value: "1"}}},
			}),
			[]string{
				"/* :method :authority !x-old :method ?q → {version=v1}, 8 retries with reset",
				"/* :method :authority !x-old ?q → {version=v1}, 8 retries",
			},
		},
		"redirect": {
			do(model.Actions{Redirect: &model.Redirect{Scheme: "https", Path: "/b", Status: 308}}),
			[]string{"/* → PERMANENT_REDIRECT https:///b"},
		},
		"redirect without a status": {
			do(model.Actions{Redirect: &model.Redirect{Authority: "b.example", Port: 81}}),
			[]string{"/* → MOVED_PERMANENTLY ://b.example:81"},
		},
		"headers": {
			do(model.Actions{
				Retries: &model.RetryLimit{},
				Request: model.HeaderChanges{
					Set:    []model.Header{{Name: "a", Value: "100%"}},
					Add:    []model.Header{{Name: "b", Value: "%REQ(c)%"}},
					Remove: []string{"c"},
				},
				Response: model.HeaderChanges{Remove: []string{"server"}},
			}),
			[]string{
				"/* :method → {version=v1} =a:100%% +b:%%REQ(c)%% -c ←-server",
				"/* → {version=v1} =a:100%% +b:%%REQ(c)%% -c ←-server",
			},
		},
		"fewer retries": {
			do(model.Actions{Retries: &model.RetryLimit{Most: 1, PerTry: time.Second}}),
			[]string{
				"/* :method → {version=v1}, 1 retries of 1s with reset", "/* → {version=v1}, 1 retries of 1s",
			},
		},
		"more retries than the mesh allows": {
			do(model.Actions{Retries: &model.RetryLimit{Most: 99}}),
			[]string{"/* :method → {version=v1}, 8 retries with reset", "/* → {version=v1}, 8 retries"},
		},
		"mirror": {
			do(model.Actions{Mirrors: []model.Mirror{
				{To: version(model.HTTP, "v2", 0), PerMillion: 5000}, {To: absent(0), PerMillion: 1},
			}}),
			[]string{
				"/* :method → {version=v1} copied 5000 to {version=v2}, 8 retries with reset",
				"/* → {version=v1} copied 5000 to {version=v2}, 8 retries",
			},
		},
		"a destination without weight": {
			&model.Route{To: []model.Destination{version(model.HTTP, "v1", 0), version(model.HTTP, "v2", 3)}},
			[]string{"/* :method → {version=v2}, 8 retries with reset", "/* → {version=v2}, 8 retries"},
		},
		"nobody for a part": {
			&model.Route{To: []model.Destination{version(model.HTTP, "v1", 1), absent(2)}},
			[]string{
				"/* :method → 1 × {version=v1}, 2 × nobody, 8 retries with reset",
				"/* → 1 × {version=v1}, 2 × nobody, 8 retries",
			},
		},
		"nobody": {
			&model.Route{To: []model.Destination{absent(1), absent(2)}},
			[]string{"/* → 503 nobody serves this import now: peer bank is suspended; peer bank is suspended"},
		},
		"no destination": {&model.Route{}, []string{"/* → 503 nobody serves this import now: "}},
		"programs for a part, whose word does not count": {
			&model.Route{To: []model.Destination{version(model.HTTP, "v1", 1), plain}},
			[]string{
				"/* gRPC :method → 1 × {version=v1}, 1 × old:80/grpc, 2 retries with reset of programs",
				"/* gRPC → 1 × {version=v1}, 1 × old:80/grpc, 8 retries of programs",
				"/* :method → 1 × {version=v1}, 1 × old:80, 2 retries with reset of programs",
				"/* → 1 × {version=v1}, 1 × old:80, 8 retries of programs",
			},
		},
		"gateways for a part, which retry": {
			&model.Route{To: []model.Destination{version(model.HTTP, "v1", 1), gateways}},
			[]string{"/* → 1 × {version=v1}, 1 × pay:80, 2 retries of programs"},
		},
		"an import with a local part": {
			&model.Route{To: []model.Destination{mixed, version(model.HTTP, "v1", 1)}},
			[]string{
				"/* :method → 1 × pay:80, 1 × {version=v1}, 4 retries with reset",
				"/* → 1 × pay:80, 1 × {version=v1}, 4 retries",
			},
		},
	} {
		// The second route makes none of them the only one.
		mesh := routed(model.HTTP, c.route, &model.Route{Match: &model.RequestMatch{Path: model.Match{Value: "/last"}}})
		all := routesIn(t, Build(view.For(mesh, "n1")))
		var got []string
		for _, r := range all[:len(all)-1] {
			got = append(got, inWords(r))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n%s\nwant:\n%s", name, strings.Join(got, "\n"), strings.Join(c.want, "\n"))
		}
	}
}

// Raw connections are shared by weight, and closed where no route takes them.
func TestRawConnectionsOfSeveralDestinations(t *testing.T) {
	v1, v2 := version(model.TCP, "v1", 3), version(model.TCP, "v2", 1)
	elsewhere := &model.Route{Match: &model.RequestMatch{Path: model.Match{Value: "/"}}, To: []model.Destination{v1}}
	for _, c := range []struct {
		routes []*model.Route
		want   string
	}{
		{[]*model.Route{elsewhere, {To: []model.Destination{v2}}}, "shop/till>reviews:80{version=v2}"},
		{
			[]*model.Route{{To: []model.Destination{v1, v2}}},
			"3 × shop/till>reviews:80{version=v1}, 1 × shop/till>reviews:80{version=v2}",
		},
		{[]*model.Route{elsewhere}, "nobody"},
		{nil, "nobody"},
	} {
		res := Build(view.For(routed(model.TCP, c.routes...), "n1"))
		var got string
		for _, r := range res.ByType[ListenerType] {
			if r.Name != "outbound/shop/till" {
				continue
			}
			p := &tcpproxyv3.TcpProxy{}
			filter := read[*listenerv3.Listener](t, r).FilterChains[0].Filters[0]
			if err := filter.GetTypedConfig().UnmarshalTo(p); err != nil {
				t.Fatal(err)
			}
			got, _, _ = strings.Cut(p.GetCluster(), "@")
			var parts []string
			for _, s := range p.GetWeightedClusters().GetClusters() {
				parts = append(parts, fmt.Sprintf("%d × %s", s.Weight, s.Name))
			}
			got += strings.Join(parts, ", ")
		}
		if got != c.want {
			t.Errorf("leads to %q, want %q", got, c.want)
		}
	}
}

// Random routes: Envoy's first match leads where the model's first match does, and every cluster is there once.
func TestRoutesLeadWhereTheModelSays(t *testing.T) {
	matched, refused, shared := 0, 0, 0
	for seed := range uint64(400) {
		w := authzWorld{rand.New(rand.NewPCG(seed, 7))}
		var routes []*model.Route
		for range 1 + w.IntN(4) {
			routes = append(routes, w.route())
		}
		res := Build(view.For(routed(model.HTTP, routes...), "n1"))
		if (model.Outbound{Routes: routes}).Sole() != nil {
			continue
		}
		there := map[string]int{}
		for _, r := range append(slices.Clone(ours.resources), res.ByType[ClusterType]...) {
			if r.Type == ClusterType {
				there[strings.TrimPrefix(r.Name, "shop/till>")]++
			}
		}
		envoys := routesIn(t, res)
		for range 30 {
			q := w.routedRequest()
			want, ok := "", false
			for _, r := range routes {
				if r.Match == nil || matchesModel(*r.Match, q) {
					want, ok = destinationsInWords(r), true
					break
				}
			}
			got, found := "", false
			for _, r := range envoys {
				if matchesEnvoy(r.Match, q) {
					got, found = clustersInWords(r), true
					break
				}
			}
			if got != want || ok != found {
				t.Fatalf("seed %d: %+v leads to %q, want %q", seed, q, got, want)
			}
			switch {
			case !ok:
				refused++
			case strings.Contains(got, "×"):
				shared++
			default:
				matched++
			}
		}
		for _, r := range envoys {
			for _, s := range clustersOf(r) {
				if there[s] != 1 {
					t.Fatalf("seed %d: %d clusters are named %s", seed, there[s], s)
				}
			}
		}
	}
	if matched < 1000 || refused < 500 || shared < 1000 {
		t.Errorf("%d lead to one destination, %d to several, %d to none: the test proves too little",
			matched, shared, refused)
	}
}

// matchValues are patterns and values that meet.
var matchValues = []model.Match{
	{Value: "a"},
	{Value: "b"},
	{Kind: model.Prefix, Value: "a"},
	{Kind: model.Suffix, Value: "b"},
	{Kind: model.Present},
}

func (w authzWorld) named(names ...string) (out []model.NamedMatch) {
	for _, name := range names {
		if w.IntN(4) == 0 {
			out = append(out, model.NamedMatch{Name: name, Match: pick(w, matchValues...)})
		}
	}
	return out
}

func (w authzWorld) route() *model.Route {
	r := &model.Route{}
	if w.IntN(4) > 0 {
		r.Match = &model.RequestMatch{
			Path: pick(w, model.Match{}, model.Match{Value: "/a"}, model.Match{Kind: model.Prefix, Value: "/a"},
				model.Match{Kind: model.Suffix, Value: "b"}, model.Match{Kind: model.Template, Value: "/{*}/b"}),
			Method:    pick(w, model.Match{}, model.Match{}, model.Match{Value: "GET"}, model.Match{Value: "POST"}),
			Authority: pick(w, model.Match{}, model.Match{}, model.Match{Value: "reviews"}),
			Headers:   w.named("x-a", "x-b"), NotHeaders: w.named("x-a", "x-c"), Query: w.named("q"),
		}
	}
	for range 1 + w.IntN(3) {
		r.To = append(r.To, pick(w, all(model.HTTP, w.Uint32N(3)), version(model.HTTP, "v1", w.Uint32N(3)),
			version(model.HTTP, "v2", w.Uint32N(3)), absent(w.Uint32N(3))))
	}
	if w.IntN(3) == 0 {
		r.Actions = &model.Actions{Mirrors: []model.Mirror{{To: version(model.HTTP, "v2", 0), PerMillion: 1}}}
	}
	return r
}

func (w authzWorld) routedRequest() envoyRequest {
	q := envoyRequest{isHTTP: true, path: pick(w, "/a", "/ab", "/a/b", "/c"), headers: map[string]string{
		":method": pick(w, "GET", "POST"), ":authority": pick(w, "reviews", "other"),
	}}
	for _, name := range []string{"x-a", "x-b", "x-c", "?q"} {
		if v := pick(w, "a", "b", "ab", ""); v != "" {
			q.headers[name] = v
		}
	}
	return q
}

func matchesModel(m model.RequestMatch, q envoyRequest) bool {
	is := func(p model.Match, v string) bool {
		switch p.Kind {
		case model.Prefix:
			return strings.HasPrefix(v, p.Value)
		case model.Suffix:
			return strings.HasSuffix(v, p.Value)
		case model.Present:
			return v != ""
		case model.Template:
			ok, _ := path.Match(strings.ReplaceAll(p.Value, "{*}", "*"), v)
			return ok
		}
		return v == p.Value
	}
	any := func(p model.Match, v string) bool { return p == model.Match{} || is(p, v) }
	matches := any(m.Path, q.path) && any(m.Method, q.headers[":method"]) && any(m.Authority, q.headers[":authority"])
	for _, h := range m.Headers {
		matches = matches && is(h.Match, q.headers[h.Name])
	}
	for _, h := range m.NotHeaders {
		matches = matches && !is(h.Match, q.headers[h.Name])
	}
	for _, p := range m.Query {
		matches = matches && is(p.Match, q.headers["?"+p.Name])
	}
	return matches
}

func matchesEnvoy(m *routev3.RouteMatch, q envoyRequest) bool {
	matches := m.Grpc == nil
	switch p := m.PathSpecifier.(type) {
	case *routev3.RouteMatch_Prefix:
		matches = matches && strings.HasPrefix(q.path, p.Prefix)
	case *routev3.RouteMatch_Path:
		matches = matches && q.path == p.Path
	case *routev3.RouteMatch_SafeRegex:
		matches = matches && wholeText(p.SafeRegex.Regex).MatchString(q.path)
	}
	for _, h := range m.Headers {
		_, there := q.headers[h.Name] // an absent header matches nothing, not even if inverted (HeaderMatcher's page)
		matches = matches && (there || h.TreatMissingHeaderAsEmpty || h.GetPresentMatch()) && headerMatches(h, q)
	}
	for _, p := range m.QueryParameters {
		v, there := q.headers["?"+p.Name]
		matches = matches && there && (p.GetPresentMatch() || textMatches(p.GetStringMatch(), v))
	}
	return matches
}
