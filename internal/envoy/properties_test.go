package envoy_test

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	istiosec "istio.io/api/security/v1beta1"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/view"
)

// told is everything that one proxy is told, endpoint sets included, as one text of bytes.
func told(mesh *model.Mesh, proxy string) []byte {
	v := view.For(mesh, proxy)
	res := envoy.Build(v)
	var b bytes.Buffer
	for _, typ := range envoy.Types {
		for _, r := range res.ByType[typ] {
			fmt.Fprintf(&b, "%s %s %s %s\n", typ, r.Name, r.Version, r.Body)
		}
	}
	for _, set := range res.Sets {
		fmt.Fprintf(&b, "%s %s\n", envoy.SetName(set), envoy.EndpointsFor(v, set, mesh.Endpoints).Body)
	}
	return b.Bytes()
}

// TestSameInputSameBytes: neither a second run nor the order in which things come changes a byte.
func TestSameInputSameBytes(t *testing.T) {
	for seed := range uint64(40) {
		w := newWorld(t, seed)
		snap := w.snapshot()
		first, _ := compile.Mesh(snap)
		second, _ := compile.Mesh(shuffled(w, snap))
		for name := range first.Proxies {
			one := told(first, name)
			if !bytes.Equal(one, told(first, name)) {
				t.Fatalf("seed %d: proxy %s is told one thing in two ways", seed, name)
			}
			if other := told(second, name); !bytes.Equal(one, other) {
				t.Fatalf(
					"seed %d: proxy %s is told otherwise when the input comes in another order: %s",
					seed,
					name,
					firstDifference(one, other),
				)
			}
		}
	}
}

// shuffled is the same snapshot, whose objects came in another order.
func shuffled(w world, s *snapshot.Snapshot) *snapshot.Snapshot {
	out, reg := *s, *s.Registry
	reg.Nodes, reg.Workloads = mixed(w, reg.Nodes), mixed(w, reg.Workloads)
	config := &snapshot.Config{}
	for _, o := range mixed(w, slices.Collect(s.Config.Objects.All())) {
		var change snapshot.Change
		change.Put(o)
		config = config.With(change)
	}
	out.Config, out.Registry = config, &reg
	return &out
}

func mixed[T any](w world, list []T) []T {
	out := slices.Clone(list)
	w.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

func firstDifference(a, b []byte) string {
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("\n%q\n%q", x[i], y[i])
		}
	}
	return "one is longer"
}

// TestEqualViewsEqualBytes: where view.Equal says that nothing changed, nothing may have changed; and it says so often
// enough to be worth asking.
func TestEqualViewsEqualBytes(t *testing.T) {
	equal, differ, careful := 0, 0, 0
	for seed := range uint64(100) {
		w := newWorld(t, seed)
		snap := w.snapshot()
		a, _ := compile.Mesh(snap)
		b, _ := compile.Mesh(changed(w, snap))
		for name := range a.Proxies {
			if b.Proxies[name] == nil {
				continue
			}
			same := bytes.Equal(resources(a, name), resources(b, name))
			switch says := view.Equal(view.For(a, name), view.For(b, name)); {
			case says && !same:
				t.Fatalf(
					"seed %d: proxy %s should be told something new, and view.Equal says no: %s",
					seed,
					name,
					firstDifference(resources(a, name), resources(b, name)),
				)
			case says:
				equal++
			case same:
				careful++
			default:
				differ++
			}
		}
	}
	t.Logf("%d equal, %d different, %d built in vain", equal, differ, careful)
	if equal < 60 || differ < 60 || careful > (equal+differ)/3 {
		t.Errorf(
			"%d equal, %d different, %d built in vain: the test proves too little, or view.Equal is of little use",
			equal,
			differ,
			careful,
		)
	}
}

// resources are what view.Equal speaks of: all but the content of endpoint sets.
func resources(mesh *model.Mesh, proxy string) []byte {
	res := envoy.Build(view.For(mesh, proxy))
	var b bytes.Buffer
	for _, typ := range envoy.Types {
		for _, r := range res.ByType[typ] {
			fmt.Fprintf(&b, "%s %s %s %v %s\n", typ, r.Name, r.Set, r.Refs, r.Body)
		}
	}
	fmt.Fprintln(&b, res.Sets)
	return b.Bytes()
}

// changed takes one part of a snapshot from another world.
func changed(w world, s *snapshot.Snapshot) *snapshot.Snapshot {
	other := w.snapshot()
	out := *s
	take := func(kinds ...string) {
		var change snapshot.Change
		for o := range s.Config.Objects.All() {
			if slices.Contains(kinds, o.Key.Kind) {
				change.Remove(o.Key)
			}
		}
		for o := range other.Config.Objects.All() {
			if slices.Contains(kinds, o.Key.Kind) {
				change.Put(o)
			}
		}
		out.Config = s.Config.With(change)
	}
	switch w.IntN(11) {
	case 0:
		take("Mesh")
	case 1:
		take("Service")
		out.VIPs = maps.Clone(s.VIPs)
		maps.Copy(out.VIPs, other.VIPs)
	case 2:
		take("AuthorizationPolicy")
	case 3:
		if policies := snapshot.Of[*security.AuthorizationPolicy](s.Config); len(policies) > 0 {
			var change snapshot.Change
			change.Remove(snapshot.KeyOf(policies[0]))
			out.Config = s.Config.With(change)
		}
	case 4:
		take("PeerAuthentication")
	case 5:
		take("ServiceEntry")
	case 6:
		take("WorkloadEntry")
	case 7:
		take("FederatedExport", "FederatedImport")
	case 8:
		take("MeshPeer")
	case 9:
		out.Registry = other.Registry
	case 10:
		out.VIPs = other.VIPs
	}
	return &out
}

// TestNeedToKnow holds every proxy to a judge of its own, written straight from the policies' text: what none of its
// workloads may call and sees, and none serves, is nowhere in what it is told.
func TestNeedToKnow(t *testing.T) {
	hidden, shown := 0, 0
	for seed := range uint64(100) {
		snap := newWorld(t, seed).snapshot()
		mesh, _ := compile.Mesh(snap)
		for _, n := range snap.Registry.Nodes {
			if n.Gateway != nil {
				continue
			}
			text := told(mesh, n.Name)
			for _, svc := range snapshot.Of[*corev1.Service](snap.Config) {
				name := host(svc.Name, svc.Namespace)
				if mayKnow(snap, n.Name, svc) {
					shown++
				} else if hidden++; bytes.Contains(text, []byte(name)) {
					t.Fatalf("seed %d: proxy %s is told of %s", seed, n.Name, name)
				}
			}
		}
	}
	if hidden < 400 || shown < 400 {
		t.Errorf("%d hidden and %d shown: the test proves too little", hidden, shown)
	}
}

// TestGatewaysNeedToKnow holds every gateway to a judge of its own, written straight from the objects' text: a service
// that is neither exported to a live peer nor imported from one, and an identity that neither serves the one nor may
// call the other, is nowhere in what it is told.
func TestGatewaysNeedToKnow(t *testing.T) {
	hidden, shown, gateways := 0, 0, 0
	for seed := range uint64(100) {
		snap := newWorld(t, seed).snapshot()
		mesh, _ := compile.Mesh(snap)
		for _, n := range snap.Registry.Nodes {
			if n.Gateway == nil {
				continue
			}
			gateways++
			text := told(mesh, n.Name)
			look := func(what string, may bool) {
				if may {
					shown++
				} else if hidden++; bytes.Contains(text, []byte(what)) {
					t.Fatalf("seed %d: gateway %s is told of %s", seed, n.Name, what)
				}
			}
			for _, ns := range namespaces {
				for _, sa := range accounts {
					exported := crosses(snap, ns, sa)
					look(host(sa, ns), exported || imports(snap, ns, sa, ""))
					look("spiffe://cards.example/ns/"+ns+"/sa/"+sa, mayServe(snap, ns, sa) || imports(snap, ns, "", sa))
				}
			}
		}
	}
	if hidden < 400 || shown < 200 || gateways < 80 {
		t.Errorf("%d hidden and %d shown at %d gateways: the test proves too little", hidden, shown, gateways)
	}
}

func isLive(snap *snapshot.Snapshot, peer string) bool {
	return slices.ContainsFunc(
		snapshot.Of[*v1alpha1.MeshPeer](snap.Config),
		func(p *v1alpha1.MeshPeer) bool { return p.Name == peer && !p.Spec.Suspend },
	)
}

// crosses: the service is exported to a live peer.
func crosses(snap *snapshot.Snapshot, ns, service string) bool {
	return slices.ContainsFunc(
		snapshot.Of[*v1alpha1.FederatedExport](snap.Config),
		func(e *v1alpha1.FederatedExport) bool {
			return e.Namespace == ns && e.Spec.Service == service && isLive(snap, e.Spec.To[0].Peer)
		},
	)
}

// imports: the service of that name, or what that account may call, is imported from a live peer.
func imports(snap *snapshot.Snapshot, ns, service, caller string) bool {
	return slices.ContainsFunc(
		snapshot.Of[*v1alpha1.FederatedImport](snap.Config),
		func(i *v1alpha1.FederatedImport) bool {
			return i.Namespace == ns && (i.Name == service || slices.Contains(i.Spec.Callers, caller)) &&
				slices.ContainsFunc(i.Spec.From, func(f v1alpha1.ImportFrom) bool {
					return isLive(snap, f.Peer) && (f.Weight == nil || *f.Weight > 0)
				})
		},
	)
}

// mayServe: a workload or an entry of that account is behind a service that is exported.
func mayServe(snap *snapshot.Snapshot, ns, account string) bool {
	return crosses(snap, ns, account) ||
		slices.ContainsFunc(
			snapshot.Of[*networking.WorkloadEntry](snap.Config),
			func(e *networking.WorkloadEntry) bool {
				return e.Namespace == ns && e.Spec.ServiceAccount == account && crosses(snap, ns, e.Spec.Labels["app"])
			},
		)
}

func mayKnow(snap *snapshot.Snapshot, node string, svc *corev1.Service) bool {
	for _, w := range snap.Registry.Workloads {
		if w.Node == node && (serves(svc, w) || sees(snap, w.Namespace, svc.Namespace) && mayCall(snap, w, svc)) {
			return true
		}
	}
	return false
}

// sees: the Sidecar of the caller's namespace, if it has one, shows the other's services.
func sees(snap *snapshot.Snapshot, caller, namespace string) bool {
	for _, s := range snapshot.Of[*networking.Sidecar](snap.Config) {
		if s.Namespace == caller {
			shown := s.Spec.Egress[0].Hosts[0]
			return shown == namespace+"/*" || shown == "./*" && caller == namespace
		}
	}
	return true
}

func serves(svc *corev1.Service, w snapshot.Workload) bool {
	return w.Namespace == svc.Namespace && w.Labels["app"] == svc.Spec.Selector["app"]
}

func mayCall(snap *snapshot.Snapshot, caller snapshot.Workload, svc *corev1.Service) bool {
	for _, i := range snapshot.Of[*v1alpha1.FederatedImport](snap.Config) {
		if i.Name == svc.Name && i.Namespace == svc.Namespace { // its own list decides
			return i.Namespace == caller.Namespace && slices.Contains(i.Spec.Callers, caller.ServiceAccount)
		}
	}
	labels := []map[string]string{}
	for _, w := range snap.Registry.Workloads {
		if serves(svc, w) {
			labels = append(labels, w.Labels)
		}
	}
	for _, e := range snapshot.Of[*networking.WorkloadEntry](snap.Config) {
		if e.Namespace == svc.Namespace && e.Spec.Labels["app"] == svc.Spec.Selector["app"] {
			labels = append(labels, e.Spec.Labels)
		}
	}
	tcp := strings.HasPrefix(svc.Spec.Ports[0].Name, "t") // tcp-x, tls-x
	return slices.ContainsFunc(
		labels,
		func(l map[string]string) bool { return admits(snap, svc.Namespace, l, tcp, caller) },
	)
}

// admits: could any request of the caller pass the policies on a server with these labels?
func admits(snap *snapshot.Snapshot, ns string, labels map[string]string, tcp bool, caller snapshot.Workload) bool {
	allowed := false
	for _, p := range snapshot.Of[*security.AuthorizationPolicy](snap.Config) {
		want := p.Spec.GetSelector().GetMatchLabels()
		if p.Namespace != ns && p.Namespace != "isthmus-system" || len(want) > 0 && labels["app"] != want["app"] {
			continue
		}
		for _, r := range p.Spec.Rules {
			if p.Spec.Action == istiosec.AuthorizationPolicy_DENY {
				if len(r.To)+len(r.When) == 0 && fromMatches(r, caller, true) {
					return false
				}
			} else if (!tcp || len(r.To)+len(r.When) == 0) && fromMatches(r, caller, false) {
				allowed = true
			}
		}
	}
	return allowed
}

// fromMatches: always is true where the match must hold whatever the caller's address.
func fromMatches(r *istiosec.Rule, caller snapshot.Workload, always bool) bool {
	id := "cards.example/ns/" + caller.Namespace + "/sa/" + caller.ServiceAccount
	like := func(pattern, v string) bool {
		switch {
		case strings.HasPrefix(pattern, "*"):
			return strings.HasSuffix(v, pattern[1:])
		case strings.HasSuffix(pattern, "*"):
			return strings.HasPrefix(v, pattern[:len(pattern)-1])
		}
		return pattern == v
	}
	any := func(list []string, v string) bool {
		return slices.ContainsFunc(list, func(p string) bool { return like(p, v) })
	}
	return len(r.From) == 0 || slices.ContainsFunc(r.From, func(f *istiosec.Rule_From) bool {
		s := f.Source
		return (!always || len(s.IpBlocks) == 0) && (len(s.Principals) == 0 || any(s.Principals, id)) &&
			!any(s.NotPrincipals, id) &&
			(len(s.Namespaces) == 0 || any(s.Namespaces, caller.Namespace)) &&
			(len(s.ServiceAccounts) == 0 ||
				slices.Contains(s.ServiceAccounts, caller.Namespace+"/"+caller.ServiceAccount))
	})
}
