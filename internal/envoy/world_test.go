package envoy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
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
	"k8s.io/apimachinery/pkg/util/intstr"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/snapshot"
)

// world makes meshes at random: some namespaces with workloads, services and policies of all forms, gateways and peers.
type world struct {
	*rand.Rand
	roots map[string]string
}

var (
	namespaces = []string{"alpha", "beta", "gamma"}
	accounts   = []string{"api", "db", "web", "job"}
)

func newWorld(t *testing.T, seed uint64) world {
	t.Helper()
	w := world{rand.New(rand.NewPCG(seed, 1)), map[string]string{}}
	for _, name := range []string{"own", "retail", "bank"} {
		pem, err := os.ReadFile("../stories/testdata/roots/" + name + ".pem")
		if err != nil {
			t.Fatal(err)
		}
		w.roots[name] = string(pem)
	}
	return w
}

func (w world) chance(n int) bool { return w.IntN(n) == 0 }

func pick[T any](w world, list ...T) T { return list[w.IntN(len(list))] }

func host(name, ns string) string { return name + "." + ns + ".svc.cluster.local" }

func (w world) snapshot() *snapshot.Snapshot {
	s := &snapshot.Snapshot{
		Time: time.Date(
			2026,
			11,
			22,
			10,
			0,
			0,
			0,
			time.UTC,
		), Roots: []byte(w.roots["own"]), VIPs: map[string]netip.Addr{},
		Registry: &snapshot.Registry{},
		Config: &snapshot.Config{Objects: snapshot.ObjectsOf(
			&v1alpha1.Mesh{
				ObjectMeta: metav1.ObjectMeta{Name: "cards"},
				Spec:       v1alpha1.MeshSpec{TrustDomain: "cards.example"},
			},
		)},
	}
	if !w.chance(4) { // else nobody knows where the control plane is
		s.PeeringAddresses = []netip.AddrPort{netip.MustParseAddrPort("10.9.0.1:15013")}
	}
	if w.chance(8) {
		s.Config.Mesh().Spec.MTLS = pick(w, v1alpha1.MTLSPermissive, v1alpha1.MTLSDisable)
	}
	if w.chance(8) {
		s.Config.Mesh().Spec.Outbound = v1alpha1.OutboundAllowAny
	}
	for i, ns := range namespaces {
		w.namespace(s, i, ns)
	}
	w.policies(s, "isthmus-system", 1)
	w.federation(s)
	return s
}

func (w world) namespace(s *snapshot.Snapshot, i int, ns string) {
	for k, sa := range accounts {
		four, six := netip.AddrFrom4(
			[4]byte{10, 0, byte(i), byte(k + 1)},
		), netip.MustParseAddr(
			fmt.Sprintf("fd00::%d:%d", i+1, k+1),
		)
		s.Registry.Workloads = append(s.Registry.Workloads, snapshot.Workload{
			Name: sa, Namespace: ns, ServiceAccount: sa, Node: fmt.Sprintf("n%d", w.IntN(3)),
			Labels: map[string]string{"app": sa, "tier": pick(w, "a", "b")},
			Addresses: pick(
				w,
				[]netip.Addr{four},
				[]netip.Addr{six},
				[]netip.Addr{four, six},
			), Netns: "/run/netns/" + ns + sa,
			Ports: []snapshot.WorkloadPort{{Name: "main", Number: 8080}}, Ready: !w.chance(4),
		})
		if w.chance(4) {
			continue // nothing to call
		}
		protocol := map[string]string{"api": "http-x", "db": "tcp-x", "web": "grpc-x", "job": "tls-x"}[sa]
		s.Config = s.Config.With(
			snapshot.PutAll(
				&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: sa, Namespace: ns}, Spec: corev1.ServiceSpec{
					Selector: map[string]string{
						"app": sa,
					}, Ports: []corev1.ServicePort{{Name: protocol, Port: 80, TargetPort: intstr.FromInt32(8080)}},
				}},
			),
		)
		s.VIPs[host(sa, ns)] = netip.AddrFrom4([4]byte{240, 240, byte(i + 1), byte(k + 1)})
	}
	w.policies(s, ns, 4)
	if w.chance(3) {
		pa := &security.PeerAuthentication{ObjectMeta: metav1.ObjectMeta{Name: "pa", Namespace: ns}}
		pa.Spec.Mtls = &istiosec.PeerAuthentication_MutualTLS{
			Mode: istiosec.PeerAuthentication_MutualTLS_Mode(w.IntN(4)),
		}
		if w.chance(2) {
			pa.Spec.Selector = &istiotype.WorkloadSelector{MatchLabels: map[string]string{"app": pick(w, accounts...)}}
		}
		s.Config = s.Config.With(snapshot.PutAll(pa))
	}
	if w.chance(4) {
		sc := &networking.Sidecar{ObjectMeta: metav1.ObjectMeta{Name: "sees", Namespace: ns}}
		sc.Spec.Egress = []*istionet.IstioEgressListener{{Hosts: []string{pick(w, "./",
			pick(w, namespaces...)+"/") + "*"}}}
		s.Config = s.Config.With(snapshot.PutAll(sc))
	}
	if w.chance(2) {
		we := &networking.WorkloadEntry{ObjectMeta: metav1.ObjectMeta{Name: "vm", Namespace: ns}}
		we.Spec = istionet.WorkloadEntry{
			Address:        fmt.Sprintf("10.1.%d.1", i),
			Labels:         map[string]string{"app": pick(w, accounts...)},
			ServiceAccount: pick(w, "vm", "api"),
			Weight:         w.Uint32N(3),
		}
		s.Config = s.Config.With(snapshot.PutAll(we))
	}
	if w.chance(2) {
		se := &networking.ServiceEntry{ObjectMeta: metav1.ObjectMeta{Name: "out", Namespace: ns}}
		se.Spec = istionet.ServiceEntry{
			Hosts: []string{
				"out." + ns + ".example.com",
			}, Resolution: pick(w, istionet.ServiceEntry_DNS, istionet.ServiceEntry_STATIC),
			Ports: []*istionet.ServicePort{
				{Number: 443, Name: "tls", Protocol: "TLS"},
			}, Endpoints: []*istionet.WorkloadEntry{{Address: "192.0.2.1"}},
			ExportTo: pick(w, nil, []string{"."}, []string{"*"}, []string{pick(w, namespaces...)}),
		}
		s.Config = s.Config.With(snapshot.PutAll(se))
		s.VIPs[se.Spec.Hosts[0]] = netip.AddrFrom4([4]byte{240, 240, byte(i + 1), 100})
	}
}

func (w world) policies(s *snapshot.Snapshot, ns string, most int) {
	for n := range w.IntN(most + 1) {
		p := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", n), Namespace: ns}}
		if !w.chance(4) {
			p.Spec.Selector = &istiotype.WorkloadSelector{MatchLabels: map[string]string{"app": pick(w, accounts...)}}
		}
		if w.chance(4) {
			p.Spec.Action = istiosec.AuthorizationPolicy_DENY
		}
		for range 1 + w.IntN(2) {
			p.Spec.Rules = append(p.Spec.Rules, w.rule())
		}
		s.Config = s.Config.With(snapshot.PutAll(p))
	}
}

func (w world) rule() *istiosec.Rule {
	r := &istiosec.Rule{}
	for range w.IntN(3) {
		s := &istiosec.Source{}
		switch w.IntN(4) {
		case 0:
			s.Namespaces = []string{pick(w, "alpha", "beta", "gam*", "*a")}
		case 1:
			s.ServiceAccounts = []string{pick(w, namespaces...) + "/" + pick(w, accounts...)}
		default:
			s.Principals = []string{w.principal(), w.principal()}
		}
		if w.chance(4) {
			s.NotPrincipals = []string{w.principal()}
		}
		if w.chance(6) {
			s.IpBlocks = []string{"10.0.0.0/16"}
		}
		r.From = append(r.From, &istiosec.Rule_From{Source: s})
	}
	if w.chance(3) {
		r.To = append(
			r.To,
			&istiosec.Rule_To{Operation: &istiosec.Operation{Methods: []string{"GET"}, Paths: []string{"/x/*"}}},
		)
	}
	if w.chance(6) {
		r.When = append(r.When, &istiosec.Condition{Key: "request.headers[x-a]", Values: []string{"b"}})
	}
	return r
}

func (w world) principal() string {
	whole := "cards.example/ns/" + pick(w, namespaces...) + "/sa/" + pick(w, accounts...)
	return pick(
		w,
		whole,
		whole,
		whole,
		"cards.example/ns/"+pick(w, namespaces...)+"/*",
		"*/sa/"+pick(w, accounts...),
		"*",
		"retail.example/ns/x/sa/y",
	)
}

func (w world) federation(s *snapshot.Snapshot) {
	for i, builtin := range []string{envoy.BuiltinVersion(), "of another program", ""} {
		s.Registry.Nodes = append(s.Registry.Nodes, snapshot.Node{
			Name: fmt.Sprintf("n%d", i), Role: snapshot.RoleNode, Builtin: builtin,
		})
	}
	if w.chance(3) {
		return
	}
	s.Registry.Nodes = append(
		s.Registry.Nodes,
		snapshot.Node{Name: "gw", Role: snapshot.RoleGateway, Gateway: &snapshot.GatewayInfo{
			ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr("10.9.0.2"),
			OuterAddress: netip.MustParseAddr("198.51.100.1"),
		}},
	)
	no := false
	for _, name := range []string{"bank", "retail"} {
		s.Config = s.Config.With(
			snapshot.PutAll(&v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MeshPeerSpec{
				TrustDomain: name + ".example", KnownAs: "cards", GatewayAddresses: []string{"198.51.100.2:15443"},
				GatewayIDs: []string{
					"spiffe://" + name + ".example/ns/isthmus-system/sa/gateway",
				}, Suspend: w.chance(5),
				Bundle: v1alpha1.PeerBundle{Inline: w.roots[name], Refresh: &no},
			}}),
		)
	}
	for _, ns := range namespaces {
		if w.chance(2) {
			s.Config = s.Config.With(snapshot.PutAll(&v1alpha1.FederatedExport{
				ObjectMeta: metav1.ObjectMeta{Name: "e", Namespace: ns},
				Spec: v1alpha1.FederatedExportSpec{
					Service: "api",
					Port:    80,
					To:      []v1alpha1.ExportTo{{Peer: pick(w, "bank", "retail"), Rules: []v1alpha1.ExportRule{{}}}},
				},
			}))
		}
		if w.chance(2) {
			weight, name := int32(w.IntN(3)), pick(w, "remote", "api")
			i := &v1alpha1.FederatedImport{
				ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: ns},
				Spec: v1alpha1.FederatedImportSpec{
					Port: 80, From: []v1alpha1.ImportFrom{
						{Peer: "bank", Weight: &weight},
						{Peer: "retail", Priority: int32(w.IntN(2))},
					}, Callers: []string{pick(w, accounts...)},
				},
			}
			if w.chance(2) {
				i.Spec.Local = &v1alpha1.ImportLocal{Priority: int32(w.IntN(2))}
			}
			s.Config = s.Config.With(snapshot.PutAll(i))
			if h := host(name, ns); !s.VIPs[h].IsValid() {
				s.VIPs[h] = netip.AddrFrom4([4]byte{240, 240, byte(slices.Index(namespaces, ns) + 1), 200})
			}
		}
	}
	if w.chance(3) { // a second gateway
		s.Registry.Nodes = append(
			s.Registry.Nodes,
			snapshot.Node{Name: "gw2", Role: snapshot.RoleGateway, Gateway: &snapshot.GatewayInfo{
				ServiceAccount: "edge", InnerAddress: netip.MustParseAddr("10.9.0.3"),
				OuterAddress: netip.MustParseAddr("198.51.100.3"),
			}},
		)
	}
}
