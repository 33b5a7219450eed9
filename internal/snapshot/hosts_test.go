package snapshot

import (
	"slices"
	"testing"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/vip"
)

func TestHosts(t *testing.T) {
	meta := metav1.ObjectMeta{Namespace: "shop", Name: "pay"}
	none := &Config{Objects: ObjectsOf(service("shop", "web", 80))}
	for name, c := range map[string]struct {
		object metav1.Object
		want   []vip.Host
		same   bool
	}{
		"a Mesh": {
			&v1alpha1.Mesh{Spec: v1alpha1.MeshSpec{Domain: "mesh.local"}},
			[]vip.Host{{Name: "web.shop.svc.mesh.local", Namespace: "shop"}},
			false,
		},
		"a Service": {service("shop", "till", 80), []vip.Host{
			{Name: "till.shop.svc.cluster.local", Namespace: "shop"},
			{Name: "web.shop.svc.cluster.local", Namespace: "shop"},
		}, false},
		"an import": {&v1alpha1.FederatedImport{ObjectMeta: meta}, []vip.Host{
			{Name: "web.shop.svc.cluster.local", Namespace: "shop"},
			{Name: "pay.shop.svc.cluster.local", Namespace: "shop"},
		}, false},
		"a ServiceEntry": {
			&networking.ServiceEntry{ObjectMeta: meta, Spec: networkingapi.ServiceEntry{
				Hosts: []string{"API.bank.example.", "*.bank.example"},
			}},
			[]vip.Host{
				{Name: "web.shop.svc.cluster.local", Namespace: "shop"}, {Name: "api.bank.example", Namespace: "shop"},
			},
			false,
		},
		"a Sidecar": {
			&networking.Sidecar{ObjectMeta: meta},
			[]vip.Host{{Name: "web.shop.svc.cluster.local", Namespace: "shop"}},
			true,
		},
	} {
		cfg := none.With(PutAll(c.object))
		if got := cfg.Hosts(); !slices.Equal(got, c.want) || cfg.SameHosts(none) != c.same {
			t.Errorf("%s: %v, the same: %v", name, got, cfg.SameHosts(none))
		}
	}
}
