package meshd

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"isthmus.dev/isthmus/internal/adminapi"
)

// The inventory says what is served where, by whom, under which policies, and who may call it.
func TestInventory(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	p.agent("node-a", []string{"default/shop", "default/payments"}, workload("shop", "shop", "10.0.0.1"),
		workload("payments", "payments", "10.0.0.2"))
	var inv *adminapi.InventoryResponse
	eventually(t, "both workloads", func() bool {
		var err error
		inv, err = adminapi.Call[adminapi.Empty, adminapi.InventoryResponse](soon(t), p.local(), "Inventory",
			&adminapi.Empty{})
		return err == nil && len(inv.Workloads) == 2
	})
	file := p.cfg.ConfigDir + "/shop.yaml"
	const host = "payments.default.svc.cluster.local"
	edges := []adminapi.AccessEdge{{
		From: "default/shop", To: host + ":80", By: []string{"AuthorizationPolicy default/payments (" + file + ":8)"},
	}}
	want := &adminapi.InventoryResponse{
		Services: []adminapi.ServiceInfo{{
			Host: host, Namespace: "default", Name: "payments", Addresses: []string{"240.240.40.195", "100::f0f0:28c3"},
			From: []string{"Service default/payments (" + file + ":1)"},
			Ports: []adminapi.ServicePort{{
				Number: 80, Protocol: "HTTP", MTLS: true,
				Callers: []string{"spiffe://cards.example/ns/default/sa/shop"},
				Endpoints: []adminapi.ServiceEndpoint{
					{Address: "10.0.0.2:8080", Workload: "default/payments", Node: "node-a", Ready: true},
				},
			}},
		}},
		Workloads: []adminapi.WorkloadInfo{
			{
				Namespace: "default", Name: "payments", Identity: "spiffe://cards.example/ns/default/sa/payments",
				Node:      "node-a",
				Labels:    []string{"app=payments", "app.kubernetes.io/name=payments"},
				Addresses: []string{"10.0.0.2"}, Ready: true, Mode: "STRICT", Ports: []adminapi.WorkloadPort{{
					Number: 8080, Protocol: "HTTP", Mode: "STRICT", Default: "deny",
					Hosts:    []string{"payments", "payments.default", "payments.default.svc", host},
					Policies: []string{"ALLOW AuthorizationPolicy default/payments (" + file + ":8)"},
				}},
			},
			{
				Namespace: "default", Name: "shop", Identity: "spiffe://cards.example/ns/default/sa/shop",
				Node:      "node-a",
				Labels:    []string{"app=shop", "app.kubernetes.io/name=shop"},
				Addresses: []string{"10.0.0.1"}, Ready: true, Mode: "STRICT", Calls: edges,
				Ports: []adminapi.WorkloadPort{{Number: 8080, Protocol: "TCP", Mode: "STRICT", Default: "deny"}},
			},
		},
	}
	if diff := cmp.Diff(want, inv, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
}
