package admin

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	istiosec "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/meshd/spine"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Of what a node serves that is away nobody says that it is ready.
func TestInventoryOfASilentNode(t *testing.T) {
	inv := &adminapi.InventoryResponse{
		Services: []adminapi.ServiceInfo{{Ports: []adminapi.ServicePort{{Endpoints: []adminapi.ServiceEndpoint{
			{Node: "a", Ready: true}, {Node: "b", Ready: true},
		}}}}},
		Workloads: []adminapi.WorkloadInfo{{Node: "a", Ready: true}, {Node: "b", Ready: true}},
	}
	markSilent(inv, []snapshot.SilentNode{{Name: "b"}})
	want := &adminapi.InventoryResponse{
		Services: []adminapi.ServiceInfo{{Ports: []adminapi.ServicePort{{Endpoints: []adminapi.ServiceEndpoint{
			{Node: "a", Ready: true}, {Node: "b", Silent: true},
		}}}}},
		Workloads: []adminapi.WorkloadInfo{{Node: "a", Ready: true}, {Node: "b", Silent: true}},
	}
	if diff := cmp.Diff(want, inv); diff != "" {
		t.Error(diff)
	}
}

// What crosses is in the inventory, and who may call whom: callers at peers, what a peer says of itself, silent nodes,
// and every policy of a workload.
func TestInventoryOfWhatCrosses(t *testing.T) {
	snap := withBank(t)
	policy := func(name string, action istiosec.AuthorizationPolicy_Action,
		principal string,
	) *security.AuthorizationPolicy {
		ap := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		ap.Spec.Action = action
		ap.Spec.Rules = []*istiosec.Rule{{From: []*istiosec.Rule_From{{
			Source: &istiosec.Source{Principals: []string{principal}},
		}}}}
		return ap
	}
	snap.Config = snap.Config.With(snapshot.PutAll(policy("no", istiosec.AuthorizationPolicy_DENY,
		"cards.example/ns/x/sa/y"),
		policy("yes", istiosec.AuthorizationPolicy_ALLOW, "bank.example/*")))
	snap.SilentNodes = []snapshot.SilentNode{{Name: "n"}}
	bank := snap.Peers["bank"]
	bank.Readiness = &snapshot.Readiness{
		Sequence: 1,
		Unready:  []snapshot.OfferedName{{Namespace: "default", Name: "money"}},
	}
	snap.Peers["bank"] = bank
	p := inForce(snap)
	alone := &federation.Service{Config: federation.Config{Leading: func() (federation.Store, bool) {
		return nil,
			true
	}}}
	a := New(Config{Published: func() *spine.Published { return p }, Federation: alone})

	inv, err := a.Inventory(t.Context(), &adminapi.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	ports := map[string]adminapi.ServicePort{}
	for _, s := range inv.Services {
		ports[s.Name] = s.Ports[0]
	}
	if diff := cmp.Diff([]string{"peer bank: spiffe://bank.example/*"}, ports["web"].Callers); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]adminapi.ServiceEndpoint{{
		Address: "10.0.0.1:80", Workload: "default/web", Node: "n",
		Silent: true,
	}}, ports["web"].Endpoints); diff != "" {
		t.Error(diff)
	}
	if peers := ports["money"].Peers; len(peers) != 1 || peers[0].Unready != "no endpoint is ready at peer bank" {
		t.Errorf("money is served by %+v", peers)
	}
	web := inv.Workloads[0]
	if web.Ready || !web.Silent {
		t.Errorf("of a silent node: %+v", web)
	}
	if diff := cmp.Diff([]string{"DENY AuthorizationPolicy default/no", "ALLOW AuthorizationPolicy default/yes"},
		web.Ports[0].Policies); diff != "" {
		t.Error(diff)
	}
	access, err := a.Access(t.Context(), &adminapi.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	crossing := adminapi.AccessEdge{
		From: "peer bank: spiffe://bank.example/*", To: "web.default.svc.cluster.local:80",
		By: []string{"AuthorizationPolicy default/yes", "FederatedExport default/web"},
	}
	if diff := cmp.Diff(crossing, access.Edges[len(access.Edges)-1]); diff != "" {
		t.Error(diff)
	}

	open := withBank(t)
	open.Config = open.Config.With(snapshot.PutAll(&v1alpha1.Mesh{
		ObjectMeta: metav1.ObjectMeta{Name: "cards"},
		Spec:       v1alpha1.MeshSpec{TrustDomain: "cards.example", DefaultAction: v1alpha1.DefaultAllow},
	}))
	p = inForce(open)
	if inv, err = a.Inventory(t.Context(), &adminapi.Empty{}); err != nil ||
		inv.Workloads[0].Ports[0].Default != "allow" || inv.Workloads[0].Silent {
		t.Errorf("where nothing forbids: %+v, %v", inv, err)
	}
}
