package agents

import (
	"net/netip"
	"testing"

	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Who may need to hear something new, and nobody else.
func TestBriefingChanged(t *testing.T) {
	t.Parallel()
	shop, cart := &model.Workload{}, &model.Workload{}
	node := func(ws ...*model.Workload) *model.Proxy { return &model.Proxy{Workloads: ws} }
	mesh := func(domain string, namespaces []string, ps map[string]*model.Proxy) *model.Mesh {
		return &model.Mesh{Domain: domain, Namespaces: namespaces, Proxies: ps}
	}
	same := node(shop)
	old := newBriefing(nil, mesh("cluster.local", []string{"a"}, map[string]*model.Proxy{
		"same": same, "changed": node(shop), "gone": node(shop), "alone": node(),
	}))
	now := map[string]*model.Proxy{
		"same": same, "changed": node(cart), "came": node(shop), "gateway": {Gateway: &model.Gateway{}},
		"alone": {Sidecars: []*model.Workload{shop}},
	}
	next := newBriefing(old, mesh("cluster.local", []string{"a"}, now))
	for name, want := range map[string]bool{
		"same": false, "changed": true, "gone": true, "came": true, "gateway": true,
		"alone": true,
	} {
		if got := next.changed(old, name); got != want {
			t.Errorf("%s: changed is %v", name, got)
		}
	}
	for what, other := range map[string]*model.Mesh{
		"domain": mesh("else.where", []string{"a"}, now), "namespaces": mesh("cluster.local", []string{"a", "b"}, now),
	} {
		if !newBriefing(old, other).changed(old, "same") {
			t.Errorf("another %s is no change", what)
		}
	}
	if !next.changed(nil, "same") {
		t.Error("the first is no change")
	}
}

// A name that a Sidecar hides is resolved for nobody of its namespace.
func TestSidecarsHideNames(t *testing.T) {
	t.Parallel()
	host := "rates.bank.example"
	entry := &networking.ServiceEntry{ObjectMeta: metav1.ObjectMeta{Name: "rates", Namespace: "default"}}
	entry.Spec.Hosts, entry.Spec.Resolution = []string{host}, istio.ServiceEntry_DNS
	entry.Spec.Ports = []*istio.ServicePort{{Number: 443, Name: "tls", Protocol: "TLS"}}
	sidecar := &networking.Sidecar{ObjectMeta: metav1.ObjectMeta{Name: "own", Namespace: "shop"}}
	sidecar.Spec.Egress = []*istio.IstioEgressListener{{Hosts: []string{"./*"}}}
	workload := func(namespace string) snapshot.Workload {
		return snapshot.Workload{
			Name: "till", Namespace: namespace, ServiceAccount: "till", Node: "n", Ready: true,
			Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")},
		}
	}
	snap := &snapshot.Snapshot{
		VIPs: map[string]netip.Addr{host: netip.MustParseAddr("240.240.0.9")},
		Config: &snapshot.Config{Objects: snapshot.ObjectsOf(
			&v1alpha1.Mesh{
				ObjectMeta: metav1.ObjectMeta{Name: "cards"},
				Spec:       v1alpha1.MeshSpec{TrustDomain: "cards.example"},
			},
			entry, sidecar,
		)},
		Registry: &snapshot.Registry{
			Nodes:     []snapshot.Node{{Name: "n", Role: snapshot.RoleNode}},
			Workloads: []snapshot.Workload{workload("shop"), workload("club")},
		},
	}
	mesh, findings := compile.Mesh(snap)
	tables := newBriefing(nil, mesh).of("n").DNS
	if len(findings) > 0 || len(tables["club/till"].Hosts[host]) != 1 || len(tables["shop/till"].Hosts) != 0 {
		t.Errorf("findings %v; names by workload: %v", findings, tables)
	}
}

func TestPlaintextAt(t *testing.T) {
	ports := []model.Inbound{
		{Port: 80, Mode: model.Strict},
		{Port: 81, Mode: model.Permissive},
		{Port: 82, Mode: model.Disable},
	}
	strict := plaintextAt(&model.Workload{Inbound: ports})
	lenient := plaintextAt(&model.Workload{Mode: model.Permissive, Inbound: ports})
	for port, want := range map[uint16]struct{ strict, lenient bool }{
		80: {false, false}, 81: {true, true}, 82: {true, true}, 40000: {false, true},
	} {
		if strict.At(port) != want.strict || lenient.At(port) != want.lenient {
			t.Errorf("port %d: plaintext %v where the workload is strict, %v where it is not", port, strict.At(port),
				lenient.At(port))
		}
	}
	if (agentapi.Plaintext{}).At(80) {
		t.Error("the zero value takes plaintext")
	}
}
