package admin

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"isthmus.dev/isthmus/internal/adminapi"
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
