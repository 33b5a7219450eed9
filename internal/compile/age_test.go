package compile

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	istionet "istio.io/api/networking/v1alpha3"
	istiosec "istio.io/api/security/v1beta1"
	istiotype "istio.io/api/type/v1beta1"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// one is a mesh with one workload, "shop" in namespace default behind Service shop, and no configuration beside them.
func one() (*snapshot.Snapshot, map[snapshot.Key]snapshot.Origin) {
	return &snapshot.Snapshot{
		Config: &snapshot.Config{Objects: snapshot.ObjectsOf(
			&v1alpha1.Mesh{
				ObjectMeta: metav1.ObjectMeta{Name: "m"},
				Spec:       v1alpha1.MeshSpec{TrustDomain: "m.example"},
			},
			&corev1.Service{ObjectMeta: metav1.ObjectMeta{
				Namespace: "default", Name: "shop",
			}, Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": "shop"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}},
			}},
		)},
		Registry: &snapshot.Registry{
			Nodes: []snapshot.Node{{Name: "n", Role: snapshot.RoleNode}},
			Workloads: []snapshot.Workload{{
				Name: "shop", Namespace: "default", ServiceAccount: "shop", Node: "n",
				Labels:    map[string]string{"app": "shop"},
				Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
				Ports:     []snapshot.WorkloadPort{{Number: 80}},
				Ready:     true,
			}},
		},
	}, map[snapshot.Key]snapshot.Origin{
		{Kind: "Service", Namespace: "default", Name: "shop"}: {
			File: "shop.yaml", Line: 1,
			FirstSeen: time.Unix(1, 0),
		},
	}
}

func peerAuthentication(
	namespace, name string, mode istiosec.PeerAuthentication_MutualTLS_Mode, labels map[string]string,
) *security.PeerAuthentication {
	pa := &security.PeerAuthentication{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	pa.Spec.Mtls = &istiosec.PeerAuthentication_MutualTLS{Mode: mode}
	if labels != nil {
		pa.Spec.Selector = &istiotype.WorkloadSelector{MatchLabels: labels}
	}
	return pa
}

// Of two PeerAuthentications the older counts, whatever they are called; where nobody knows which it is, the stricter
// does.
func TestOldestPeerAuthentication(t *testing.T) {
	shop := map[string]string{"app": "shop"}
	for name, test := range map[string]struct {
		namespace string
		labels    map[string]string
		a, b      int64 // when first seen
		want      model.MTLSMode
		loser     string
	}{
		"workload, the first by name is newer": {
			"default", shop, 20, 10, model.Strict,
			"PeerAuthentication default/a",
		},
		"workload, the first by name is older": {
			"default", shop, 10, 20, model.Permissive,
			"PeerAuthentication default/b",
		},
		"workload, same age": {
			"default", shop, 10, 10, model.Strict,
			"PeerAuthentication default/b",
		},
		"workload, unknown age":                 {"default", shop, 0, 0, model.Strict, "PeerAuthentication default/b"},
		"namespace, the first by name is newer": {"default", nil, 20, 10, model.Strict, "PeerAuthentication default/a"},
		"namespace, the first by name is older": {
			"default", nil, 10, 20, model.Permissive,
			"PeerAuthentication default/b",
		},
		"namespace, same age": {"default", nil, 10, 10, model.Strict, "PeerAuthentication default/b"},
		"mesh, the first by name is newer": {
			"isthmus-system", nil, 20, 10, model.Strict, "PeerAuthentication isthmus-system/a",
		},
		"mesh, the age of the second is unknown": {
			"isthmus-system", nil, 10, 0, model.Permissive, "PeerAuthentication isthmus-system/b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			snap, origins := one()
			snap.Config = snap.Config.With(snapshot.PutAll(peerAuthentication(test.namespace, "a",
				istiosec.PeerAuthentication_MutualTLS_PERMISSIVE, test.labels),
				peerAuthentication(test.namespace, "b", istiosec.PeerAuthentication_MutualTLS_STRICT, test.labels)))
			for n, seen := range map[string]int64{"a": test.a, "b": test.b} {
				o := snapshot.Origin{File: n + ".yaml", Line: 1}
				if seen > 0 {
					o.FirstSeen = time.Unix(seen, 0)
				}
				origins[snapshot.Key{Kind: "PeerAuthentication", Namespace: test.namespace, Name: n}] = o
			}
			snap.Config.Objects = snap.Config.Objects.WithOrigins(origins)
			mesh, findings := Mesh(snap)
			if got := mesh.Workloads[model.WorkloadID{
				Namespace: "default",
				Name:      "shop",
			}].Inbound[0].Mode; got != test.want {
				t.Errorf("mode %s, want %s", got, test.want)
			}
			if len(findings) != 1 || findings[0].Code != "ISM0031" || findings[0].Object.String() != test.loser {
				t.Errorf("findings %v", findings)
			}
		})
	}
}

// Port-level modes of objects of one age: the stricter, port by port.
func TestPeerAuthenticationsOfOneAgeByPort(t *testing.T) {
	snap, _ := one()
	a := peerAuthentication("default", "a", istiosec.PeerAuthentication_MutualTLS_PERMISSIVE,
		map[string]string{"app": "shop"})
	a.Spec.PortLevelMtls = map[uint32]*istiosec.PeerAuthentication_MutualTLS{
		80: {Mode: istiosec.PeerAuthentication_MutualTLS_DISABLE},
	}
	b := peerAuthentication("default", "b", istiosec.PeerAuthentication_MutualTLS_PERMISSIVE,
		map[string]string{"app": "shop"})
	snap.Config = snap.Config.With(snapshot.PutAll(a,
		b))
	mesh, _ := Mesh(snap)
	if got := mesh.Workloads[model.WorkloadID{
		Namespace: "default", Name: "shop",
	}].Inbound[0].Mode; got != model.Permissive {
		t.Errorf("port 80 is %s, want PERMISSIVE", got)
	}
}

// Who came first keeps a host and an address, not who sorts first.
func TestOldestServiceEntry(t *testing.T) {
	entry := func(name, host, address string) *networking.ServiceEntry {
		return &networking.ServiceEntry{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name,
		}, Spec: istionet.ServiceEntry{
			Hosts: []string{host}, Addresses: []string{address}, Resolution: istionet.ServiceEntry_STATIC,
			Location:  istionet.ServiceEntry_MESH_EXTERNAL,
			Ports:     []*istionet.ServicePort{{Number: 443, Name: "tls", Protocol: "TLS"}},
			Endpoints: []*istionet.WorkloadEntry{{Address: "192.0.2.1"}},
		}}
	}
	for name, test := range map[string]struct {
		list []*networking.ServiceEntry
		code finding.Code
	}{
		"host": {
			[]*networking.ServiceEntry{
				entry("a", "bank.example", "192.0.2.10"),
				entry("b", "bank.example", "192.0.2.11"),
			},
			"ISM0022",
		},
		"address": {
			[]*networking.ServiceEntry{entry("a", "a.example", "192.0.2.10"), entry("b", "b.example", "192.0.2.10")},
			"ISM0025",
		},
	} {
		t.Run(name, func(t *testing.T) {
			snap, origins := one()
			snap.Config = snap.Config.With(snapshot.PutAll(test.list...))
			origins[snapshot.Key{Kind: "ServiceEntry", Namespace: "default", Name: "a"}] = snapshot.Origin{
				FirstSeen: time.Unix(20, 0),
			}
			origins[snapshot.Key{Kind: "ServiceEntry", Namespace: "default", Name: "b"}] = snapshot.Origin{
				FirstSeen: time.Unix(10, 0),
			}
			snap.Config.Objects = snap.Config.Objects.WithOrigins(origins)
			_, findings := Mesh(snap)
			if len(findings) != 1 || findings[0].Code != test.code ||
				findings[0].Object.String() != "ServiceEntry default/a" {
				t.Errorf("findings %v, want %s on ServiceEntry default/a", findings, test.code)
			}
		})
	}
}

// An import keeps its host from a ServiceEntry that comes later.
func TestOldestOfImportAndServiceEntry(t *testing.T) {
	snap, origins := one()
	snap.Config = snap.Config.With(snapshot.PutAll(&v1alpha1.FederatedImport{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bank"},
		Spec:       v1alpha1.FederatedImportSpec{Port: 80, Callers: []string{"shop"}},
	}))
	snap.Config = snap.Config.With(snapshot.PutAll(&networking.ServiceEntry{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "a",
	}, Spec: istionet.ServiceEntry{
		Hosts: []string{"bank.default.svc.cluster.local"}, Resolution: istionet.ServiceEntry_STATIC,
		Ports: []*istionet.ServicePort{{Number: 80, Name: "http"}},
	}}))
	origins[snapshot.Key{Kind: "ServiceEntry", Namespace: "default", Name: "a"}] = snapshot.Origin{
		FirstSeen: time.Unix(20, 0),
	}
	origins[snapshot.Key{Kind: "FederatedImport", Namespace: "default", Name: "bank"}] = snapshot.Origin{
		FirstSeen: time.Unix(10, 0),
	}
	snap.Config.Objects = snap.Config.Objects.WithOrigins(origins)
	mesh, findings := Mesh(snap)
	if len(mesh.Imports) != 1 || len(findings) != 1 || findings[0].Object.String() != "ServiceEntry default/a" {
		t.Errorf("%d imports, findings %v", len(mesh.Imports), findings)
	}
}

// What a closed object of a security kind selects is called by nobody, and takes nothing but mutual TLS.
func TestClosed(t *testing.T) {
	for name, test := range map[string]struct {
		closed snapshot.Closed
		shut   bool
	}{
		"policy, whole namespace": {
			snapshot.Closed{Key: snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "default", Name: "p"}}, true,
		},
		"policy, selected": {snapshot.Closed{
			Key:      snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "default", Name: "p"},
			Selector: map[string]string{"app": "shop"},
		}, true},
		"policy, empty selector": {snapshot.Closed{
			Key:      snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "default", Name: "p"},
			Selector: map[string]string{},
		}, true},
		"policy, selects another": {snapshot.Closed{
			Key:      snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "default", Name: "p"},
			Selector: map[string]string{"app": "other"},
		}, false},
		"policy, another namespace": {
			snapshot.Closed{Key: snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "other", Name: "p"}}, false,
		},
		"policy, root namespace": {
			snapshot.Closed{Key: snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "isthmus-system", Name: "p"}},
			true,
		},
		"peer authentication": {
			snapshot.Closed{Key: snapshot.Key{Kind: "PeerAuthentication", Namespace: "default", Name: "p"}}, true,
		},
		"security kind that is not carried out": {
			snapshot.Closed{Key: snapshot.Key{Kind: "RequestAuthentication", Namespace: "default", Name: "p"}}, true,
		},
		"nobody knows what":          {snapshot.Closed{Key: snapshot.Key{Namespace: "default"}}, true},
		"nobody knows what or where": {snapshot.Closed{}, true},
		"another kind": {
			snapshot.Closed{Key: snapshot.Key{Kind: "Service", Namespace: "default", Name: "x"}}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			snap, origins := one()
			snap.Config.Mesh().Spec.MTLS = v1alpha1.MTLSPermissive
			snap.Config.Mesh().Spec.DefaultAction = v1alpha1.DefaultAllow
			snap.Config.Objects = snap.Config.Objects.WithOrigins(origins)
			test.closed.Reason = "it cannot be read"
			snap.Config.Closed = []snapshot.Closed{test.closed}
			mesh, findings := Mesh(snap)
			shop := mesh.Workloads[model.WorkloadID{Namespace: "default", Name: "shop"}]
			in := shop.Inbound[0]
			denied := slices.ContainsFunc(in.Policies.Deny,
				func(p *model.Policy) bool { return len(p.Rules) == 1 && len(p.Rules[0].From)+len(p.Rules[0].To) == 0 })
			if denied != test.shut || (in.Mode == model.Strict) != test.shut || (len(shop.Outbound) == 0) != test.shut {
				t.Errorf("denied %v, mode %s, it may call %v; want closed %v", denied, in.Mode, shop.Outbound,
					test.shut)
			}
			if len(findings) != 1 || findings[0].Code != "ISM0201" || findings[0].Severity != finding.Error {
				t.Errorf("findings %v", findings)
			}
		})
	}
}

// A fault of ours at one object is a finding on that object; a policy's closes its namespace, and the others stay.
func TestFaultAtOneObject(t *testing.T) {
	snap, _ := one()
	snap.Config.Mesh().Spec.DefaultAction = v1alpha1.DefaultAllow
	snap.Registry.Workloads = append(snap.Registry.Workloads, snapshot.Workload{
		Name: "till", Namespace: "other", ServiceAccount: "till", Node: "n",
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, Ports: []snapshot.WorkloadPort{{Number: 80}},
	})
	bad := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bad"}}
	bad.Spec.Rules = []*istiosec.Rule{nil}
	snap.Config = snap.Config.With(snapshot.PutAll(bad))
	mesh, findings := Mesh(snap)
	if len(findings) != 1 || findings[0].Code != "ISM0202" ||
		findings[0].Object.String() != "AuthorizationPolicy default/bad" {
		t.Errorf("findings %v", findings)
	}
	if got := len(mesh.Workloads[model.WorkloadID{
		Namespace: "default", Name: "shop",
	}].Inbound[0].Policies.Deny); got != 1 {
		t.Errorf("%d policies deny in the namespace of the policy, want 1", got)
	}
	if got := len(mesh.Workloads[model.WorkloadID{
		Namespace: "other",
		Name:      "till",
	}].Inbound[0].Policies.Deny); got != 0 {
		t.Errorf("%d policies deny elsewhere, want none", got)
	}
}
