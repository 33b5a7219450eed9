package compile

import (
	"net/netip"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// A gateway that is silent is no endpoint while another is there. Where all are, it may be the control plane that is
// cut off, and all stay.
func TestSilentGatewaysAreNoEndpoints(t *testing.T) {
	gateway := func(name, inner string) snapshot.Node {
		return snapshot.Node{
			Name: name, Role: snapshot.RoleGateway, Reached: netip.MustParseAddr("10.0.0.9"),
			Gateway: &snapshot.GatewayInfo{
				ServiceAccount: "gateway", InnerAddress: netip.MustParseAddr(inner),
				OuterAddress: netip.MustParseAddr("192.0.2.1"),
			},
		}
	}
	at := func(silent ...string) *snapshot.Snapshot {
		return &snapshot.Snapshot{
			Roots: []byte("roots"), SilentGateways: silent, PeeringPort: 15013,
			Registry: &snapshot.Registry{Nodes: []snapshot.Node{gateway("a", "10.0.0.1"), gateway("b", "10.0.0.2")}},
			Config: &snapshot.Config{Objects: snapshot.ObjectsOf(
				&v1alpha1.Mesh{
					ObjectMeta: metav1.ObjectMeta{Name: "cards"},
					Spec:       v1alpha1.MeshSpec{TrustDomain: "cards.example"},
				},
			)},
		}
	}
	var last *Compiled
	for _, tt := range []struct{ silent, want []string }{
		{nil, []string{"10.0.0.1", "10.0.0.2"}},
		{[]string{"a"}, []string{"10.0.0.2"}},
		{[]string{"b"}, []string{"10.0.0.1"}},
		{[]string{"a", "b"}, []string{"10.0.0.1", "10.0.0.2"}},
		{[]string{"gone"}, []string{"10.0.0.1", "10.0.0.2"}},
	} {
		last = Next(last, at(tt.silent...))
		var got []string
		for _, e := range last.Mesh.Endpoints[model.EndpointSet{Host: "gateway.isthmus-system", Port: 15444}] {
			got = append(got, e.Addr.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("silent %v: endpoints %v instead of %v", tt.silent, got, tt.want)
		}
		if c := last.Mesh.Proxies["a"].Gateway.ControlAt; len(c) != 1 || c[0].String() != "10.0.0.9:15013" {
			t.Errorf("it reaches the control plane at %v", c)
		}
	}
}
