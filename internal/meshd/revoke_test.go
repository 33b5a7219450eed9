package meshd

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
)

// Who is revoked is nobody's endpoint any more, and the administrator hears which certificates outlast that.
func TestWorkloadsOfARevokedNodeServeNoLonger(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": shopYAML})
	stolen := p.agent("node-a", []string{"default/payments"}, workload("payments", "payments", "10.0.0.2"))
	other := workload("payments", "payments", "10.0.0.3")
	other.Name = "payments-2"
	p.agent("node-b", []string{"default/payments"}, other)
	caller := p.agent("node-c", []string{"default/shop"}, workload("shop", "shop", "10.0.0.1"))
	_, err := stolen.sign("default", "payments")
	must(t, err)

	set := envoy.SetName(model.EndpointSet{Host: "payments.default.svc.cluster.local", Port: 80})
	shop := ads(t, caller.conn, nil)
	shop.until("configured", shop.hasListener("outbound/default/shop"))
	shop.has[envoy.EndpointType] = map[string]string{}
	shop.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: envoy.EndpointType, ResourceNamesSubscribe: []string{set}})
	endpoints := map[string]bool{}
	take := func(want ...string) {
		t.Helper()
		for late := time.Now().Add(patience); !slices.Equal(slices.Sorted(maps.Keys(endpoints)), want); {
			r := shop.take(100 * time.Millisecond)
			if r == nil && time.Now().After(late) {
				t.Fatalf("its endpoints are %v, want %v", endpoints, want)
			}
			if r != nil && r.TypeUrl == envoy.EndpointType && len(r.Resources) > 0 {
				endpoints = addressesOf(t, r.Resources[0].Resource)
			}
		}
	}
	take("10.0.0.2", "10.0.0.3")

	began := time.Now()
	got := ask[adminapi.RevokedNode](t, p.local(), "RevokeNode", &adminapi.NodeRequest{Node: "node-a"})
	take("10.0.0.3")
	t.Logf("out of the endpoints after %s", time.Since(began).Round(time.Millisecond))
	if len(got.Certificates) != 1 || got.Certificates[0].SPIFFEID != "spiffe://cards.example/ns/default/sa/payments" ||
		time.Until(got.Certificates[0].NotAfter) < time.Minute {
		t.Errorf("what outlasts: %+v", got)
	}
	for _, proxy := range p.status().Proxies {
		if strings.HasPrefix(proxy.Name, "node-a") {
			t.Error("it is still a proxy of the mesh")
		}
	}
}

func addressesOf(t *testing.T, resource *anypb.Any) map[string]bool {
	t.Helper()
	var set endpointv3.ClusterLoadAssignment
	must(t, resource.UnmarshalTo(&set))
	out := map[string]bool{}
	for _, l := range set.Endpoints {
		for _, e := range l.LbEndpoints {
			out[e.GetEndpoint().GetAddress().GetSocketAddress().GetAddress()] = true
		}
	}
	return out
}
