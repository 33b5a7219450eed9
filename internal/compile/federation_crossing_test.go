package compile

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

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

// crossings is a mesh with the peers bank and shop, of which bank offers a few services, one workload that speaks HTTP
// and raw TCP, and a gateway.
func crossings(t *testing.T) *snapshot.Snapshot {
	noon := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	peer := func(name, address string) *v1alpha1.MeshPeer {
		return &v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MeshPeerSpec{
			TrustDomain: name + ".example", KnownAs: "cards", GatewayAddresses: []string{address},
			GatewayIDs: []string{"spiffe://" + name + ".example/ns/isthmus-system/sa/gateway"},
			Bundle:     v1alpha1.PeerBundle{Inline: newRoot(t, noon)},
		}}
	}
	service := func(name, port string, number int32, app string, target int32) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec: corev1.ServiceSpec{
				Selector: map[string]string{"app": app},
				Ports:    []corev1.ServicePort{{Name: port, Port: number, TargetPort: intstr.FromInt32(target)}},
			},
		}
	}
	return &snapshot.Snapshot{
		Time: noon, Roots: []byte("roots"),
		Config: &snapshot.Config{Objects: snapshot.ObjectsOf(
			&v1alpha1.Mesh{
				ObjectMeta: metav1.ObjectMeta{Name: "cards"},
				Spec:       v1alpha1.MeshSpec{TrustDomain: "cards.example"},
			},
			peer("bank", "192.0.2.1:15443"),
			peer("shop", "192.0.2.2:15443"),
			service("raw", "tcp-x", 7000, "web", 7001),
			service("rest", "http", 80, "rest", 8080),
			service("web", "http", 80, "web", 8080),
		)},
		Registry: &snapshot.Registry{
			Nodes: []snapshot.Node{
				{
					Name: "edge", Role: snapshot.RoleGateway,
					Gateway: &snapshot.GatewayInfo{
						ServiceAccount: "gw",
						InnerAddress:   netip.MustParseAddr("10.0.0.9"),
					},
				},
				{Name: "n", Role: snapshot.RoleNode},
			},
			Workloads: []snapshot.Workload{{
				Namespace: "default", Name: "web", ServiceAccount: "web", Node: "n",
				Labels:    map[string]string{"app": "web"},
				Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ready: true,
			}},
		},
		Peers: map[string]snapshot.PeerState{"bank": {
			BundleTime: noon,
			Catalogue: &snapshot.Catalogue{Sequence: 1, Services: []snapshot.OfferedService{
				{Name: "money", Namespace: "default", Port: 80, Protocol: "HTTP"},
				{Name: "ledger", Namespace: "books", Port: 7000, Protocol: "TCP"},
			}},
		}, "shop": {BundleTime: noon}},
	}
}

func imported(name string, change func(*v1alpha1.FederatedImport)) *v1alpha1.FederatedImport {
	i := &v1alpha1.FederatedImport{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: v1alpha1.FederatedImportSpec{
			Port: 9000, Callers: []string{"web"},
			From: []v1alpha1.ImportFrom{{Peer: "bank"}},
		},
	}
	change(i)
	return i
}

func exported(service string, port int32, rules ...v1alpha1.ExportRule) *v1alpha1.FederatedExport {
	return &v1alpha1.FederatedExport{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: service},
		Spec: v1alpha1.FederatedExportSpec{
			Service: service, Port: port,
			To: []v1alpha1.ExportTo{{Peer: "shop", Rules: rules}},
		},
	}
}

func allowing(principals ...string) *security.AuthorizationPolicy {
	return policyOf(istiosec.AuthorizationPolicy_ALLOW, &istiosec.Source{Principals: principals})
}

func policyOf(action istiosec.AuthorizationPolicy_Action, s *istiosec.Source) *security.AuthorizationPolicy {
	ap := &security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default",
		Name:      "p-" + strings.ToLower(action.String()),
	}}
	ap.Spec.Selector = &istiotype.WorkloadSelector{MatchLabels: map[string]string{"app": "web"}}
	ap.Spec.Action = action
	ap.Spec.Rules = []*istiosec.Rule{{From: []*istiosec.Rule_From{{Source: s}}}}
	return ap
}

// to narrows the rule of a policy to operations.
func to(ap *security.AuthorizationPolicy, operations ...*istiosec.Operation) *security.AuthorizationPolicy {
	for _, o := range operations {
		ap.Spec.Rules[0].To = append(ap.Spec.Rules[0].To, &istiosec.Rule_To{Operation: o})
	}
	return ap
}

// inMode has the workloads of default take what a mode of mutual TLS lets in.
func inMode(mode istiosec.PeerAuthentication_MutualTLS_Mode) func(*snapshot.Snapshot) {
	return func(s *snapshot.Snapshot) {
		pa := &security.PeerAuthentication{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}
		pa.Spec.Mtls = &istiosec.PeerAuthentication_MutualTLS{Mode: mode}
		s.Config = s.Config.With(snapshot.PutAll(pa))
	}
}

// What cannot cross is said at the end where it is to be mended, with what to write; and nothing is said of what can.
func TestCrossing(t *testing.T) {
	none := func(*v1alpha1.FederatedImport) {}
	zero := int32(0)
	till := v1alpha1.ExportRule{Callers: []string{"spiffe://shop.example/ns/default/sa/till"}}
	for name, tt := range map[string]struct {
		imports  []*v1alpha1.FederatedImport
		exports  []*v1alpha1.FederatedExport
		policies []*security.AuthorizationPolicy
		change   func(*snapshot.Snapshot)
		want     []string // code, field, message and remedy of each finding
		offered  int
	}{
		"what is offered": {imports: []*v1alpha1.FederatedImport{imported("money", none)}},
		"mistyped": {
			imports: []*v1alpha1.FederatedImport{imported("mony", none)},
			want: []string{
				"ISM0325 spec.from[0].name peer bank does not offer default/mony, so it serves nothing",
				"did you mean default/money? Otherwise isthmus catalogue bank lists what it offers; ask its administrators to export this",
			},
		},
		"in another namespace": {
			imports: []*v1alpha1.FederatedImport{imported("ledger",
				func(i *v1alpha1.FederatedImport) { i.Spec.Protocol = "TCP" })},
			want: []string{
				"ISM0325 spec.from[0].name peer bank does not offer default/ledger, so it serves nothing",
				"did you mean books/ledger? Otherwise isthmus catalogue bank lists what it offers; ask its administrators to export this",
			},
		},
		"withdrawn": {
			imports: []*v1alpha1.FederatedImport{imported("money", none)},
			change: func(s *snapshot.Snapshot) {
				s.Peers["bank"] = snapshot.PeerState{BundleTime: s.Time, Catalogue: &snapshot.Catalogue{Sequence: 2}}
			},
			want: []string{
				"ISM0325 spec.from[0].name peer bank does not offer default/money, so it serves nothing",
				"isthmus catalogue bank lists what it offers; ask its administrators to export this",
			},
		},
		"no catalogue yet": {imports: []*v1alpha1.FederatedImport{imported("x",
			func(i *v1alpha1.FederatedImport) { i.Spec.From[0].Peer = "shop" })}},
		"TCP as HTTP": {
			imports: []*v1alpha1.FederatedImport{imported("ledger",
				func(i *v1alpha1.FederatedImport) { i.Spec.From[0].Namespace = "books" })},
			want: []string{
				"ISM0326 spec.protocol peer bank offers books/ledger as TCP and the import says HTTP: no call succeeds",
				"write protocol: TCP",
			},
		},
		"callers": {
			imports: []*v1alpha1.FederatedImport{imported("money",
				func(i *v1alpha1.FederatedImport) { i.Spec.Callers = []string{"web", "default/wbe"} })},
			want: []string{
				"ISM0327 spec.callers[1] no workload of the mesh has the service account default/wbe",
				"did you mean default/web? isthmus services -o json lists the identities; correct it, or let the workload join",
			},
		},
		"peered anew under another name": {
			imports: []*v1alpha1.FederatedImport{imported("money",
				func(i *v1alpha1.FederatedImport) { i.Spec.From[0].Peer = "oldbank" })},
			want: []string{
				"ISM0333 spec.from nobody can serve it now: there is no peer oldbank",
				"isthmus peer list shows how it stands with the peers; a source of weight 0 serves nothing",
				`ISM0334 spec.from[0].peer there is no peer "oldbank"`, "did you mean bank?",
			},
		},
		"no live peer": {
			imports: []*v1alpha1.FederatedImport{imported("money", func(i *v1alpha1.FederatedImport) {
				i.Spec.From = append(i.Spec.From, v1alpha1.ImportFrom{Peer: "shop", Weight: &zero})
			})},
			change: func(s *snapshot.Snapshot) {
				s.Peers["bank"] = snapshot.PeerState{
					BundleTime: s.Time, Suspended: true,
					Catalogue: &snapshot.Catalogue{Sequence: 2},
				}
			},
			want: []string{
				"ISM0333 spec.from nobody can serve it now: nothing passes between this mesh and peer bank, peer shop has the weight 0",
				"isthmus peer list shows how it stands with the peers; a source of weight 0 serves nothing",
			},
		},
		"weights of 0 alone": {
			imports: []*v1alpha1.FederatedImport{imported("money", func(i *v1alpha1.FederatedImport) {
				i.Spec.From[0].Weight, i.Spec.Local = &zero, &v1alpha1.ImportLocal{Weight: &zero}
			})},
			want: []string{
				"ISM0333 spec.from nobody can serve it now: peer bank has the weight 0, the local endpoints have the weight 0",
				"isthmus peer list shows how it stands with the peers; a source of weight 0 serves nothing",
			},
		},
		"in too many namespaces": {
			imports: []*v1alpha1.FederatedImport{imported("statements", none)},
			change: func(s *snapshot.Snapshot) {
				for _, ns := range []string{"branch-north", "branch-south", "branch-east", "branch-west"} {
					c := s.Peers["bank"].Catalogue
					c.Services = append(c.Services,
						snapshot.OfferedService{Name: "statements", Namespace: ns, Port: 80, Protocol: "HTTP"})
				}
			},
			want: []string{
				"ISM0325 spec.from[0].name peer bank does not offer default/statements, so it serves nothing",
				"isthmus catalogue bank lists what it offers; ask its administrators to export this",
			},
		},
		"a peer mistyped": {
			imports: []*v1alpha1.FederatedImport{imported("new", func(i *v1alpha1.FederatedImport) {
				i.Spec.From = append(i.Spec.From, v1alpha1.ImportFrom{Peer: "bnak"})
				i.Spec.From[0].Peer = "shop"
			})},
			want: []string{`ISM0334 spec.from[1].peer there is no peer "bnak"`, "did you mean bank?"},
		},
		"nobody has joined": {
			imports: []*v1alpha1.FederatedImport{imported("money",
				func(i *v1alpha1.FederatedImport) { i.Spec.Callers = []string{"nobody"} })},
			exports: []*v1alpha1.FederatedExport{exported("web", 80, till)}, offered: 1,
			change: func(s *snapshot.Snapshot) { s.Registry.Workloads = nil },
		},
		"what nobody registered is not judged": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80, till)}, offered: 1,
			change: func(s *snapshot.Snapshot) {
				e := &networking.WorkloadEntry{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "vm"}}
				e.Spec.Address, e.Spec.Labels = "10.0.0.7", map[string]string{"app": "web"}
				s.Config = s.Config.With(snapshot.PutAll(e))
			},
		},
		"admitted by the asserted caller": {
			exports:  []*v1alpha1.FederatedExport{exported("web", 80, till)},
			policies: []*security.AuthorizationPolicy{allowing("shop.example/ns/default/sa/till")}, offered: 1,
		},
		"admitted by the gateway": {
			exports:  []*v1alpha1.FederatedExport{exported("raw", 7000)},
			policies: []*security.AuthorizationPolicy{allowing("cards.example/ns/isthmus-system/sa/gw")}, offered: 1,
		},
		"admitted by a pattern": {
			exports:  []*v1alpha1.FederatedExport{exported("web", 80, till)},
			policies: []*security.AuthorizationPolicy{allowing("shop.example/ns/default/*")}, offered: 1,
		},
		"admitted by namespace": {
			exports: []*v1alpha1.FederatedExport{exported("raw", 7000)},
			policies: []*security.AuthorizationPolicy{
				policyOf(istiosec.AuthorizationPolicy_ALLOW, &istiosec.Source{Namespaces: []string{"isthmus-system"}}),
			}, offered: 1,
		},
		"admits nobody": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80, till)},
			want: []string{
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/web: " +
					"its AuthorizationPolicies allow none of the callers that the export lets through",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["shop.example/ns/default/sa/till"]}}]}`,
			},
		},
		"admits nobody, though in plaintext too": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80, till)},
			change:  inMode(istiosec.PeerAuthentication_MutualTLS_PERMISSIVE),
			want: []string{
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/web: " +
					"its AuthorizationPolicies allow none of the callers that the export lets through",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["shop.example/ns/default/sa/till"]}}]}`,
			},
		},
		"without mutual TLS nobody's name is known": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80, till)},
			change:  inMode(istiosec.PeerAuthentication_MutualTLS_DISABLE), offered: 1,
		},
		"admits none of a kind of callers": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80,
				v1alpha1.ExportRule{Callers: []string{"spiffe://shop.example/ns/default/*"}})},
			want: []string{
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/web: " +
					"its AuthorizationPolicies allow none of the callers that the export lets through",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["shop.example/ns/default/*"]}}]}`,
			},
		},
		"admits somebody else": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80, till)},
			policies: []*security.AuthorizationPolicy{allowing("shop.example/ns/default/sa/clerk",
				"bank.example/ns/default/sa/till")},
			want: []string{
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/web: " +
					"its AuthorizationPolicies allow none of the callers that the export lets through",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["shop.example/ns/default/sa/till"]}}]}`,
			},
		},
		"admitted by trust domain": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80, till)},
			policies: []*security.AuthorizationPolicy{
				policyOf(istiosec.AuthorizationPolicy_ALLOW,
					&istiosec.Source{TrustDomains: []string{"bank.example", "shop.*"}}),
			}, offered: 1,
		},
		"admits another trust domain": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80, till)},
			policies: []*security.AuthorizationPolicy{
				policyOf(istiosec.AuthorizationPolicy_ALLOW, &istiosec.Source{TrustDomains: []string{"bank.example"}}),
			},
			want: []string{
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/web: " +
					"its AuthorizationPolicies allow none of the callers that the export lets through",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["shop.example/ns/default/sa/till"]}}]}`,
			},
		},
		"admits every caller of another peer": {
			exports:  []*v1alpha1.FederatedExport{exported("web", 80, v1alpha1.ExportRule{})},
			policies: []*security.AuthorizationPolicy{allowing("bank.example/ns/default/sa/till")},
			want: []string{
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/web: " +
					"its AuthorizationPolicies allow none of the callers that the export lets through",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["shop.example/*"]}}]}`,
			},
		},
		"admits at another port": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80, till)},
			policies: []*security.AuthorizationPolicy{
				to(allowing("shop.example/ns/default/sa/till", "cards.example/ns/isthmus-system/sa/gw"),
					&istiosec.Operation{Ports: []string{"7001"}}),
			},
			want: []string{
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/web: " +
					"its AuthorizationPolicies allow none of the callers that the export lets through",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["shop.example/ns/default/sa/till"]}}]}`,
			},
		},
		"admits requests to a port of raw TCP": {
			exports: []*v1alpha1.FederatedExport{exported("raw", 7000)},
			policies: []*security.AuthorizationPolicy{
				to(allowing("cards.example/ns/isthmus-system/sa/gw"), &istiosec.Operation{Methods: []string{"GET"}}),
			},
			want: []string{
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/raw: a raw connection reaches it in " +
					"the name of this mesh's own gateway, which none of its AuthorizationPolicies allows",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["cards.example/ns/isthmus-system/sa/gw"]}}]}`,
			},
		},
		"denied": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80, till)},
			policies: []*security.AuthorizationPolicy{
				allowing("shop.example/ns/default/sa/till"),
				policyOf(istiosec.AuthorizationPolicy_DENY, &istiosec.Source{Namespaces: []string{"isthmus-system"}}),
			},
			want: []string{
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/web: " +
					"its AuthorizationPolicies allow none of the callers that the export lets through",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["shop.example/ns/default/sa/till"]}}]}`,
			},
		},
		"raw TCP admits the gateway alone": {
			exports: []*v1alpha1.FederatedExport{exported("raw", 7000)},
			want: []string{
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/raw: a raw connection reaches it in " +
					"the name of this mesh's own gateway, which none of its AuthorizationPolicies allows",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["cards.example/ns/isthmus-system/sa/gw"]}}]}`,
			},
		},
		"a peer's caller on raw TCP": {
			exports:  []*v1alpha1.FederatedExport{exported("raw", 7000)},
			policies: []*security.AuthorizationPolicy{allowing("shop.example/ns/default/sa/till")},
			change: func(s *snapshot.Snapshot) {
				var gone snapshot.Change
				for _, name := range []string{"rest", "web"} {
					gone.Remove(snapshot.Key{Kind: "Service", Namespace: "default", Name: name})
				}
				s.Config = s.Config.With(gone)
			},
			want: []string{
				"ISM0332 spec.rules port 7001 speaks raw TCP, on which a peer's callers are not known: the rules that name them allow nobody",
				`name this mesh's own gateway, "cards.example/ns/isthmus-system/sa/gw"; the FederatedExport says which peer it lets in`,
				"ISM0328 spec.to[0] every call of peer shop is refused by the workload behind default/raw: a raw connection reaches it in " +
					"the name of this mesh's own gateway, which none of its AuthorizationPolicies allows",
				`write an AuthorizationPolicy in namespace default that selects the workload, with the rule ` +
					`{from: [{source: {principals: ["cards.example/ns/isthmus-system/sa/gw"]}}]}`,
			},
		},
		"no endpoint": {
			exports: []*v1alpha1.FederatedExport{exported("rest", 80, till)}, offered: 1,
			want: []string{
				"ISM0330 spec.service no endpoint of Service default/rest is ready at port 80, so every call fails",
				"start the workload, or correct the Service's selector and targetPort: isthmus endpoints shows them",
			},
		},
		"no endpoint, for two peers": {
			exports: []*v1alpha1.FederatedExport{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "rest"},
				Spec: v1alpha1.FederatedExportSpec{Service: "rest", Port: 80, To: []v1alpha1.ExportTo{
					{Peer: "shop", Rules: []v1alpha1.ExportRule{till}},
					{Peer: "bank", Rules: []v1alpha1.ExportRule{{}}},
				}},
			}}, offered: 2,
			want: []string{
				"ISM0330 spec.service no endpoint of Service default/rest is ready at port 80, so every call fails",
				"start the workload, or correct the Service's selector and targetPort: isthmus endpoints shows them",
			},
		},
		"an export to a peer mistyped": {
			exports: []*v1alpha1.FederatedExport{{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
				Spec: v1alpha1.FederatedExportSpec{
					Service: "web", Port: 80,
					To: []v1alpha1.ExportTo{{Peer: "shpo", Rules: []v1alpha1.ExportRule{till}}},
				},
			}},
			want: []string{`ISM0334 spec.to[0].peer there is no peer "shpo"`, "did you mean shop?"},
		},
		"rules that match nothing": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80, v1alpha1.ExportRule{
				Callers: []string{
					"spiffe://shop.example/default/till", "spiffe://shop.example/ns/default/sa/till",
					"spiffe://shop.example/ns/default/*", "spiffe://shop.example/x*",
				},
			})},
			policies: []*security.AuthorizationPolicy{allowing("shop.example/*")}, offered: 1,
			want: []string{
				`ISM0331 spec.to[0].rules[0].callers[0] no caller of peer shop can be "spiffe://shop.example/default/till"`,
				"write spiffe://shop.example/ns/<namespace>/sa/<service account>",
				`ISM0331 spec.to[0].rules[0].callers[3] no caller of peer shop can be "spiffe://shop.example/x*"`,
				"write spiffe://shop.example/ns/<namespace>/sa/<service account>",
			},
		},
		"a rule is missing, and the gateway is admitted": {
			exports: []*v1alpha1.FederatedExport{exported("web", 80)},
			policies: []*security.AuthorizationPolicy{
				policyOf(istiosec.AuthorizationPolicy_ALLOW, &istiosec.Source{Namespaces: []string{"isthmus-system"}}),
			},
		},
		"a rule is missing": {
			exports:  []*v1alpha1.FederatedExport{exported("web", 80)},
			policies: []*security.AuthorizationPolicy{allowing("shop.example/*")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			snap := crossings(t)
			snap.Config = snap.Config.With(snapshot.PutAll(tt.imports...)).With(snapshot.PutAll(tt.exports...)).
				With(snapshot.PutAll(tt.policies...))
			if tt.change != nil {
				tt.change(snap)
			}
			mesh, _ := Mesh(snap)
			var got []string
			for _, f := range findCrossing(snap, mesh) {
				got = append(got, string(f.Code)+" "+f.Field+" "+f.Message, f.Remedy)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if n := len(Passes(mesh)); n != tt.offered {
				t.Errorf("%d exports are offered, want %d", n, tt.offered)
			}
		})
	}
}

// TestNoPassingOn: what is imported is not exported again, but for local endpoints beside it.
func TestNoPassingOn(t *testing.T) {
	for name, local := range map[string]*v1alpha1.ImportLocal{"a peer's alone": nil, "with local endpoints": {}} {
		snap := crossings(t)
		snap.Config = snap.Config.With(snapshot.PutAll(imported("web",
			func(i *v1alpha1.FederatedImport) { i.Spec.Port, i.Spec.Local = 80, local })))
		snap.Config = snap.Config.With(snapshot.PutAll(exported("web", 80, v1alpha1.ExportRule{})))
		mesh, findings := Mesh(snap)
		refused := false
		for _, f := range findings {
			if refused = refused || f.Code == "ISM0329"; f.Code == "ISM0329" && (f.Field != "spec.service" ||
				f.Message != "port 80 of default/web is imported from a peer: a mesh does not pass on what is another's, so nothing is exported") {
				t.Errorf("%s: %+v", name, f)
			}
		}
		if refused != (local == nil) || len(mesh.Exports) != map[bool]int{true: 0, false: 1}[refused] {
			t.Errorf("%s: refused %v, %d exports", name, refused, len(mesh.Exports))
		}
	}
}

// TestPeerCalls: whom both the export and the workload let in is listed, as narrowly as either of them says.
func TestPeerCalls(t *testing.T) {
	elsewhere := to(allowing("shop.example/ns/default/sa/clerk"), &istiosec.Operation{Ports: []string{"7001"}})
	elsewhere.Name = "elsewhere"
	till := v1alpha1.ExportRule{Callers: []string{"spiffe://shop.example/ns/default/sa/till"}}
	for name, tt := range map[string]struct {
		exports  []*v1alpha1.FederatedExport
		policies []*security.AuthorizationPolicy
		want     []string
	}{
		"one": {
			[]*v1alpha1.FederatedExport{exported("web", 80, till)},
			[]*security.AuthorizationPolicy{allowing("shop.example/*")},
			[]string{"shop spiffe://shop.example/ns/default/sa/till default/web:80 AuthorizationPolicy default/p-allow, FederatedExport default/web"},
		},
		"the policy is narrower": {
			[]*v1alpha1.FederatedExport{exported("web", 80, v1alpha1.ExportRule{})},
			[]*security.AuthorizationPolicy{allowing("shop.example/ns/default/sa/till", "shop.example/ns/a/*",
				"bank.example/*")},
			[]string{
				"shop spiffe://shop.example/ns/a/* default/web:80 AuthorizationPolicy default/p-allow, FederatedExport default/web",
				"shop spiffe://shop.example/ns/default/sa/till default/web:80 AuthorizationPolicy default/p-allow, FederatedExport default/web",
			},
		},
		"somebody else": {
			[]*v1alpha1.FederatedExport{exported("web", 80, till)},
			[]*security.AuthorizationPolicy{allowing("shop.example/ns/a/*")},
			nil,
		},
		"raw TCP": {
			[]*v1alpha1.FederatedExport{exported("raw", 7000)},
			[]*security.AuthorizationPolicy{allowing("cards.example/ns/isthmus-system/sa/gw")},
			[]string{"shop  default/raw:7000 AuthorizationPolicy default/p-allow, FederatedExport default/raw"},
		},
		"raw TCP by a peer's caller": {
			[]*v1alpha1.FederatedExport{exported("raw", 7000)},
			[]*security.AuthorizationPolicy{allowing("shop.example/*")},
			nil,
		},
		"raw TCP by a rule that names a method": {
			[]*v1alpha1.FederatedExport{exported("raw", 7000)},
			[]*security.AuthorizationPolicy{to(allowing("cards.example/ns/isthmus-system/sa/gw"),
				&istiosec.Operation{Methods: []string{"GET"}}, &istiosec.Operation{Ports: []string{"7001"}})},
			nil,
		},
		"somebody at another port": {
			[]*v1alpha1.FederatedExport{exported("web", 80, v1alpha1.ExportRule{})},
			[]*security.AuthorizationPolicy{
				to(allowing("shop.example/ns/default/sa/till"), &istiosec.Operation{Ports: []string{"8080"}}),
				elsewhere,
			},
			[]string{"shop spiffe://shop.example/ns/default/sa/till default/web:80 AuthorizationPolicy default/p-allow, FederatedExport default/web"},
		},
		"some of it refused": {
			[]*v1alpha1.FederatedExport{exported("web", 80, till)},
			[]*security.AuthorizationPolicy{
				allowing("shop.example/*"),
				to(policyOf(istiosec.AuthorizationPolicy_DENY, &istiosec.Source{}),
					&istiosec.Operation{Methods: []string{"POST"}}),
			},
			[]string{"shop spiffe://shop.example/ns/default/sa/till default/web:80 AuthorizationPolicy default/p-allow, FederatedExport default/web"},
		},
		"whoever another peer names": {
			[]*v1alpha1.FederatedExport{exported("web", 80, v1alpha1.ExportRule{})},
			[]*security.AuthorizationPolicy{allowing("bank.example/*")},
			nil,
		},
		"by the gateway": {
			[]*v1alpha1.FederatedExport{exported("web", 80, till)},
			[]*security.AuthorizationPolicy{policyOf(istiosec.AuthorizationPolicy_ALLOW,
				&istiosec.Source{Namespaces: []string{"isthmus-system"}})},
			[]string{"shop spiffe://shop.example/ns/default/sa/till default/web:80 AuthorizationPolicy default/p-allow, FederatedExport default/web"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			snap := crossings(t)
			snap.Config = snap.Config.With(snapshot.PutAll(tt.exports...)).With(snapshot.PutAll(tt.policies...))
			mesh, _ := Mesh(snap)
			var got []string
			for _, c := range PeerCalls(mesh) {
				var by []string
				for _, r := range c.By {
					by = append(by, string(r))
				}
				got = append(got, fmt.Sprintf("%s %s %s/%s:%d %s", c.Peer, c.Caller, c.Export.Service.ID.Namespace,
					c.Export.Service.ID.Name,
					c.Export.Port.Number, strings.Join(by, ", ")))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestPeerCallsOfTheUnregistered: what no node has registered is judged by the export alone.
func TestPeerCallsOfTheUnregistered(t *testing.T) {
	snap := crossings(t)
	snap.Registry.Workloads = nil
	e := &networking.WorkloadEntry{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "vm"}}
	e.Spec.Address, e.Spec.Labels = "10.0.0.7", map[string]string{"app": "web"}
	till := v1alpha1.ExportRule{Callers: []string{"spiffe://shop.example/ns/default/sa/till"}}
	snap.Config = snap.Config.With(snapshot.PutAll(e)).With(snapshot.PutAll(exported("web", 80, till)))
	mesh, _ := Mesh(snap)
	calls := PeerCalls(mesh)
	if len(calls) != 1 || calls[0].Peer != "shop" || calls[0].Caller != "spiffe://shop.example/ns/default/sa/till" ||
		len(calls[0].By) != 1 || calls[0].By[0] != "FederatedExport default/web" {
		t.Errorf("%+v", calls)
	}
}
