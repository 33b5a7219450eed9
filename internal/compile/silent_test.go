package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// What a silent node serves is out of use, but never the last endpoint that is ready; and none that is not ready takes
// its place.
func TestSilentNodesAreNoEndpoints(t *testing.T) {
	workload := func(node, address string, ready bool) snapshot.Workload {
		return snapshot.Workload{
			Namespace: "default", Name: "web-" + node, ServiceAccount: "web", Node: node,
			Labels:    map[string]string{"app": "web"},
			Addresses: []netip.Addr{netip.MustParseAddr(address)}, Ready: ready,
		}
	}
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"},
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
	config := &snapshot.Config{Objects: snapshot.ObjectsOf(
		&v1alpha1.Mesh{
			ObjectMeta: metav1.ObjectMeta{Name: "shop"},
			Spec:       v1alpha1.MeshSpec{TrustDomain: "shop.example"},
		}, service,
	)}
	registries := map[bool]*snapshot.Registry{}
	for _, cReady := range []bool{false, true} {
		registries[cReady] = &snapshot.Registry{
			Nodes: []snapshot.Node{
				{Name: "a", Role: snapshot.RoleNode},
				{Name: "b", Role: snapshot.RoleNode},
				{Name: "c", Role: snapshot.RoleNode},
			},
			Workloads: []snapshot.Workload{
				workload("a", "10.0.0.1", true), workload("b", "10.0.0.2", true),
				workload("c", "10.0.0.3", cReady),
			},
		}
	}
	var last *Compiled
	for _, tt := range []struct {
		silent []string
		cReady bool
		want   []string
	}{
		{nil, false, []string{"10.0.0.1", "10.0.0.2"}},
		{[]string{"a"}, false, []string{"10.0.0.2"}},
		{[]string{"b"}, false, []string{"10.0.0.1"}},
		{[]string{"a", "b"}, false, []string{"10.0.0.1", "10.0.0.2"}},
		{[]string{"a", "b"}, true, []string{"10.0.0.3"}},
		{[]string{"a", "b", "c"}, true, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}},
		{[]string{"c"}, true, []string{"10.0.0.1", "10.0.0.2"}},
		{nil, true, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"}},
	} {
		snap := &snapshot.Snapshot{Roots: []byte("roots"), Config: config, Registry: registries[tt.cReady]}
		for _, name := range tt.silent {
			snap.SilentNodes = append(snap.SilentNodes, snapshot.SilentNode{Name: name, Since: time.Unix(1, 0)})
		}
		last = Next(last, snap)
		whole, _ := Mesh(snap)
		for what, mesh := range map[string]*model.Mesh{"at once": whole, "as a change": last.Mesh} {
			var got []string
			for _, e := range mesh.Endpoints[model.EndpointSet{Host: "web.default.svc.cluster.local", Port: 80}] {
				if e.Healthy {
					got = append(got, e.Addr.String())
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("silent %v, c ready %t, compiled %s: in use are %v instead of %v", tt.silent, tt.cReady, what,
					got, tt.want)
			}
		}
		if len(tt.silent) == 1 && !last.OnlyEndpoints {
			t.Errorf("silent %v: more than endpoints was compiled", tt.silent)
		}
	}
}

// A targetPort that no workload has is said, and one that some workload has, or may have, is not.
func TestTargetPortOfNobody(t *testing.T) {
	with := func(ports ...snapshot.WorkloadPort) *instance {
		i := &instance{workload: &model.Workload{}, ports: map[string]uint16{}}
		for _, p := range ports {
			i.ports[portKey(p.Name, p.Number)] = p.Number
		}
		return i
	}
	web := snapshot.WorkloadPort{Name: "web", Number: 8080}
	for _, tt := range []struct {
		backends []*instance
		target   intstr.IntOrString
		want     string
	}{
		{[]*instance{with(web)}, intstr.FromInt32(8080), ""},
		{[]*instance{with(web)}, intstr.FromString("web"), ""},
		{[]*instance{with(snapshot.WorkloadPort{Number: 80})}, intstr.IntOrString{}, ""},
		{[]*instance{with()}, intstr.FromInt32(9), ""},
		{[]*instance{with(web), with()}, intstr.FromInt32(9), ""},
		{nil, intstr.FromInt32(9), ""},
		{[]*instance{{host: "elsewhere"}}, intstr.FromInt32(9), ""},
		{
			[]*instance{with(web)},
			intstr.FromInt32(8081),
			"no workload behind it names a port 8081 among its own (8080 (web)): where nothing listens, every call fails",
		},
		{
			[]*instance{with(web), with(snapshot.WorkloadPort{Number: 9090})},
			intstr.FromString("http"),
			"no workload behind it names a port http among its own (8080 (web), 9090): where nothing listens, every call fails",
		},
		{
			[]*instance{with(web)},
			intstr.IntOrString{},
			"no workload behind it names a port 80 among its own (8080 (web)): where nothing listens, every call fails",
		},
	} {
		c := &report{origins: &snapshot.Config{}}
		c.targetsNobody(snapshot.Key{Kind: "Service", Namespace: "default", Name: "web"}, "spec.ports[0].targetPort",
			tt.backends, tt.target, 80)
		got := ""
		for _, f := range c.findings {
			got += f.Message
		}
		if got != tt.want {
			t.Errorf("%v: %q instead of %q", fmt.Sprint(tt.target.String()), got, tt.want)
		}
	}
}
