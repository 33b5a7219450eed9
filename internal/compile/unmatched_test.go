package compile

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	istiosec "istio.io/api/security/v1beta1"
	istiotype "istio.io/api/type/v1beta1"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
)

// What a policy names and nobody is is said, with what was most likely meant, and nothing is said of what is there.
func TestUnmatched(t *testing.T) {
	from := func(s *istiosec.Source) []*istiosec.Rule {
		return []*istiosec.Rule{{From: []*istiosec.Rule_From{{Source: s}}}}
	}
	to := func(ports ...string) []*istiosec.Rule {
		return []*istiosec.Rule{{To: []*istiosec.Rule_To{{Operation: &istiosec.Operation{Ports: ports}}}}}
	}
	when := func(key string, values ...string) []*istiosec.Rule {
		return []*istiosec.Rule{{When: []*istiosec.Condition{{Key: key, Values: values}}}}
	}
	service := func(namespace string, selector map[string]string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "other"},
			Spec: corev1.ServiceSpec{
				Selector: selector,
				Ports:    []corev1.ServicePort{{Port: 81, TargetPort: intstr.FromInt32(8080)}},
			},
		}
	}
	for name, tt := range map[string]struct {
		namespace string
		labels    map[string]string
		service   *corev1.Service // beside web
		rules     []*istiosec.Rule
		entry     bool     // beside web a WorkloadEntry of its labels, which no node has registered
		want      []string // code, field, message
		near      string   // with which the remedy begins
	}{
		"all is there": {
			namespace: "default", labels: map[string]string{"app": "web"}, rules: from(&istiosec.Source{
				Principals: []string{
					"cards.example/ns/default/sa/web", "cluster.local/ns/default/sa/web", "bank.example/ns/x/sa/y",
					"*/ns/default/sa/web", "cards.example/ns/isthmus-system/sa/gateway",
					"old.example/ns/default/sa/web", "*",
				},
				Namespaces: []string{"default", "def*"}, ServiceAccounts: []string{"web", "default/web"},
			}),
		},
		"the whole mesh": {
			namespace: "isthmus-system",
			rules:     from(&istiosec.Source{Namespaces: []string{"default"}}),
		},
		"everywhere, too": {namespace: "isthmus-system", labels: map[string]string{"app": "web"}},
		"labels": {
			namespace: "default", labels: map[string]string{"app": "wbe"},
			want: []string{
				"ISM0345", "spec.selector",
				"no workload of namespace default has the labels app=wbe, so the policy applies to nobody",
			},
			near: "did you mean app=web? isthmus status",
		},
		"namespace of the policy": {
			namespace: "defualt",
			want: []string{
				"ISM0345", "metadata.namespace",
				"no workload is in namespace defualt, so the policy applies to nobody",
			},
		},
		"labels of a Service": {
			namespace: "default", service: service("default", map[string]string{"app": "wbe"}),
			want: []string{
				"ISM0345", "spec.selector",
				"no workload of namespace default has the labels app=wbe, so nobody serves it, and whoever calls it is refused",
			},
		},
		"namespace of a Service": {
			namespace: "default", service: service("defualt", map[string]string{"app": "web"}),
			want: []string{
				"ISM0345", "metadata.namespace",
				"no workload is in namespace defualt, so nobody serves it, and whoever calls it is refused",
			},
		},
		"a Service of the root namespace selects there alone": {
			namespace: "default", service: service("isthmus-system", map[string]string{"app": "web"}),
			want: []string{
				"ISM0345", "metadata.namespace",
				"no workload is in namespace isthmus-system, so nobody serves it, and whoever calls it is refused",
			},
		},
		"a Service without a selector": {namespace: "default", service: service("default", nil)},
		"principal with a scheme": {
			namespace: "default",
			rules:     from(&istiosec.Source{Principals: []string{"spiffe://cards.example/ns/default/sa/web"}}),
			want: []string{
				"ISM0347", "spec.rules[0].from[0].source.principals[0]",
				`"spiffe://cards.example/ns/default/sa/web" matches nobody: a principal is written without spiffe://`,
			},
		},
		"principal of a stranger": {
			namespace: "default",
			rules:     from(&istiosec.Source{NotPrincipals: []string{"other.example/ns/default/sa/web"}}),
			want: []string{
				"ISM0347", "spec.rules[0].from[0].source.notPrincipals[0]",
				`"other.example/ns/default/sa/web" matches nobody: its trust domain is neither this mesh's nor a peer's`,
			},
		},
		"principal that nobody is": {
			namespace: "default", rules: when("source.principal", "cards.example/ns/default/sa/wbe"),
			want: []string{
				"ISM0346", "spec.rules[0].when[0].values[0]",
				`no workload of the mesh has the principal "cards.example/ns/default/sa/wbe"`,
			},
		},
		"namespace that nobody is in": {
			namespace: "default", rules: from(&istiosec.Source{Namespaces: []string{"default", "prod"}}),
			want: []string{
				"ISM0346", "spec.rules[0].from[0].source.namespaces[1]",
				`no workload of the mesh has the namespace "prod"`,
			},
		},
		"service account that nobody has": {
			namespace: "isthmus-system", rules: from(&istiosec.Source{ServiceAccounts: []string{"web"}}),
			want: []string{
				"ISM0346", "spec.rules[0].from[0].source.serviceAccounts[0]",
				`no workload of the mesh has the service account "web"`,
			},
		},
		"what is excepted, too": {
			namespace: "default", rules: from(&istiosec.Source{
				NotNamespaces:      []string{"prod"},
				NotServiceAccounts: []string{"web", "wbe"},
			}),
			want: []string{
				"ISM0346", "spec.rules[0].from[0].source.notNamespaces[0]",
				`no workload of the mesh has the namespace "prod"`,
				"ISM0346", "spec.rules[0].from[0].source.notServiceAccounts[1]",
				`no workload of the mesh has the service account "wbe"`,
			},
		},
		"namespace in a condition": {
			namespace: "default", rules: when("source.namespace", "default", "prod"),
			want: []string{
				"ISM0346", "spec.rules[0].when[0].values[1]",
				`no workload of the mesh has the namespace "prod"`,
			},
		},
		"service account in a condition": {
			namespace: "default", rules: when("source.serviceAccount", "default/web", "prod/web"),
			want: []string{
				"ISM0346", "spec.rules[0].when[0].values[1]",
				`no workload of the mesh has the service account "prod/web"`,
			},
		},
		"principal without a trust domain": {
			namespace: "default", rules: from(&istiosec.Source{Principals: []string{"web"}}),
			want: []string{
				"ISM0347", "spec.rules[0].from[0].source.principals[0]",
				`"web" matches nobody: its trust domain is neither this mesh's nor a peer's`,
			},
		},
		"of what nobody registered not all ports are known": {
			namespace: "default", rules: to("8080", "80"),
			entry: true,
		},
		"the Service's port": {
			namespace: "default", rules: to("8080", "80"),
			want: []string{
				"ISM0348", "spec.rules[0].to[0].operation.ports[1]",
				"no workload that the policy selects listens at 80; they listen at 8080",
			},
		},
		"the Service's port, in a condition": {
			namespace: "default", rules: when("destination.port", "80"),
			want: []string{
				"ISM0348", "spec.rules[0].when[0].values[0]",
				"no workload that the policy selects listens at 80; they listen at 8080",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ap := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: tt.namespace, Name: "p"}}
			ap.Spec.Rules = tt.rules
			if tt.labels != nil {
				ap.Spec.Selector = &istiotype.WorkloadSelector{MatchLabels: tt.labels}
			}
			snap := &snapshot.Snapshot{
				Config: &snapshot.Config{Objects: snapshot.ObjectsOf(
					&v1alpha1.Mesh{Spec: v1alpha1.MeshSpec{
						TrustDomain:        "cards.example",
						TrustDomainAliases: []string{"old.example"},
					}},
					&v1alpha1.MeshPeer{
						ObjectMeta: metav1.ObjectMeta{Name: "bank"},
						Spec:       v1alpha1.MeshPeerSpec{TrustDomain: "bank.example"},
					},
					&corev1.Service{
						ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
						Spec: corev1.ServiceSpec{
							Selector: map[string]string{"app": "web"},
							Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}},
						},
					},
					ap,
				)},
				Registry: &snapshot.Registry{
					Nodes: []snapshot.Node{{
						Name: "edge", Role: snapshot.RoleGateway,
						Gateway: &snapshot.GatewayInfo{ServiceAccount: "gateway"},
					}},
					Workloads: []snapshot.Workload{{
						Namespace: "default", Name: "web", ServiceAccount: "web", Node: "n",
						Labels:    map[string]string{"app": "web"},
						Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ready: true,
					}},
				},
			}
			if tt.entry {
				e := &networking.WorkloadEntry{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "vm"}}
				e.Spec.Address, e.Spec.Labels = "10.0.0.7", map[string]string{"app": "web"}
				snap.Config = snap.Config.With(snapshot.PutAll(e))
			}
			if tt.service != nil {
				snap.Config = snap.Config.With(snapshot.PutAll(tt.service))
			}
			mesh, _ := Mesh(snap)
			var got []string
			for _, f := range findUnmatched(snap, mesh) {
				if !strings.HasPrefix(f.Remedy, tt.near) {
					t.Errorf("remedy %q", f.Remedy)
				}
				got = append(got, string(f.Code), f.Field, f.Message)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			snap.Registry = nil
			if fs := findUnmatched(snap, mesh); len(fs) > 0 {
				t.Errorf("without any workload: %v", fs)
			}
		})
	}
}
