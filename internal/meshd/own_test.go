package meshd

import (
	"fmt"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"isthmus.dev/isthmus/internal/envoy"
)

const entryYAML = `apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: spare, namespace: default}
spec: {address: 10.0.0.9, serviceAccount: payments, labels: {app: payments}, ports: {http: 8080}}
`

// A node that serves a destination itself has a form of its own of the endpoint set, and hears of what changes
// elsewhere in it; other callers have the shared form.
func TestOwnFormOfAnEndpointSet(t *testing.T) {
	t.Parallel()
	both := strings.Replace(shopYAML, "cards.example/ns/default/sa/shop", "*", 1)
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML, "shop.yaml": both, "spare.yaml": entryYAML})
	a := p.agent("node-a", []string{"default/shop", "default/payments"}, workload("shop", "shop", "10.0.0.1"),
		workload("payments", "payments", "10.0.0.2"))
	b := p.agent("node-b", []string{"default/till"}, workload("till", "till", "10.0.0.3"))
	const shared, own = "payments.default.svc.cluster.local:80", "payments.default.svc.cluster.local:80@node-a"
	near, far := ads(t, a.conn, nil), ads(t, b.conn, nil)
	places := map[*proxy]func() string{}
	for px, set := range map[*proxy]string{near: own, far: shared} {
		px.until("its listener", func() bool { return len(px.has[envoy.ListenerType]) > 0 })
		px.has[envoy.EndpointType] = map[string]string{}
		px.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl:                envoy.EndpointType,
			ResourceNamesSubscribe: []string{shared, own},
		})
		places[px] = func() string { return px.places(set) }
	}
	eventually(t, "node-a hands over to payments",
		func() bool { return places[near]() == "handover/default/payments 10.0.0.9:8080" })
	eventually(t, "node-b calls payments by the network",
		func() bool { return places[far]() == "10.0.0.2:8080 10.0.0.9:8080" })
	if near.has[envoy.EndpointType][shared] != "" || far.has[envoy.EndpointType][own] != "" {
		t.Errorf("one was told the other's form: %v, %v", near.has, far.has)
	}

	p.write("spare.yaml", strings.Replace(entryYAML, "10.0.0.9", "10.0.0.8", 1))
	eventually(t, "node-a hears of another address",
		func() bool { return places[near]() == "handover/default/payments 10.0.0.8:8080" })
	eventually(t, "node-b hears of another address",
		func() bool { return places[far]() == "10.0.0.2:8080 10.0.0.8:8080" })

	p.write("mesh.yaml", strings.Replace(meshYAML, "trustDomain:", "sameNode: Network, trustDomain:", 1))
	eventually(t, "node-a calls by the network", func() bool {
		return near.places(shared) == "10.0.0.2:8080 10.0.0.8:8080" && near.has[envoy.EndpointType][own] == "" &&
			!near.hasListener("handover/default/payments")()
	})
}

// places are the addresses of an endpoint set as the proxy has it now.
func (p *proxy) places(set string) string {
	for r := p.take(0); r != nil; r = p.take(0) {
		for _, res := range r.Resources {
			if r.TypeUrl != envoy.EndpointType {
				continue
			}
			var a endpointv3.ClusterLoadAssignment
			must(p.t, res.Resource.UnmarshalTo(&a))
			var out []string
			for _, l := range a.Endpoints {
				for _, e := range l.LbEndpoints {
					at := e.GetEndpoint().Address
					out = append(out, at.GetEnvoyInternalAddress().GetServerListenerName()+socketText(at))
				}
			}
			p.has[envoy.EndpointType][res.Name] = strings.Join(out, " ")
		}
	}
	return p.has[envoy.EndpointType][set]
}

func socketText(a *corev3.Address) string {
	if s := a.GetSocketAddress(); s != nil {
		return fmt.Sprintf("%s:%d", s.Address, s.GetPortValue())
	}
	return ""
}
