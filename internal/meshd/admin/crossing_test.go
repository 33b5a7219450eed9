package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/meshd/spine"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// withBank is mesh cards with the live peer bank, which offers ledger and money, a workload that admits nobody, and
// imports and exports that are right and wrong.
func withBank(t *testing.T) *snapshot.Snapshot {
	t.Helper()
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	object := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
	export := func(service string) *v1alpha1.FederatedExport {
		return &v1alpha1.FederatedExport{ObjectMeta: object(service), Spec: v1alpha1.FederatedExportSpec{
			Service: service, Port: 80, To: []v1alpha1.ExportTo{{Peer: "bank", Rules: []v1alpha1.ExportRule{{}}}},
		}}
	}
	service := func(name, app string) *corev1.Service {
		return &corev1.Service{ObjectMeta: object(name), Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": app}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}},
		}}
	}
	imported := func(name, protocol string) *v1alpha1.FederatedImport {
		return &v1alpha1.FederatedImport{ObjectMeta: object(name), Spec: v1alpha1.FederatedImportSpec{
			Port: 80, Protocol: v1alpha1.ImportProtocol(protocol), Callers: []string{"web"},
			From: []v1alpha1.ImportFrom{{Peer: "bank"}},
		}}
	}
	return &snapshot.Snapshot{
		Time: now, Roots: []byte("roots"),
		Config: &snapshot.Config{Objects: snapshot.ObjectsOf(
			&v1alpha1.Mesh{
				ObjectMeta: metav1.ObjectMeta{Name: "cards"},
				Spec:       v1alpha1.MeshSpec{TrustDomain: "cards.example"},
			},
			&v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: "bank"}, Spec: v1alpha1.MeshPeerSpec{
				TrustDomain: "bank.example", KnownAs: "cards", GatewayAddresses: []string{"192.0.2.1:15443"},
				GatewayIDs: []string{"spiffe://bank.example/ns/isthmus-system/sa/gateway"},
				Bundle: v1alpha1.PeerBundle{Inline: string(pem.EncodeToMemory(&pem.Block{
					Type:  "CERTIFICATE",
					Bytes: der,
				}))},
			}},
			service("gone", "gone"),
			service("web", "web"),
			export("gone"),
			export("nothing"),
			export("web"),
			imported("ledger", "HTTP"),
			imported("money", "HTTP"),
			imported("mony", "HTTP"),
		)},
		Registry: &snapshot.Registry{
			Nodes: []snapshot.Node{{Name: "n", Role: snapshot.RoleNode}},
			Workloads: []snapshot.Workload{{
				Namespace: "default", Name: "web", ServiceAccount: "web", Node: "n",
				Labels:    map[string]string{"app": "web"},
				Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Ready: true,
			}},
		},
		Peers: map[string]snapshot.PeerState{"bank": {
			BundleTime: now,
			Catalogue: &snapshot.Catalogue{Sequence: 1, Services: []snapshot.OfferedService{
				{Namespace: "default", Name: "ledger", Port: 7000, Protocol: "TCP"},
				{Namespace: "default", Name: "money", Port: 80, Protocol: "HTTP"},
			}},
		}},
	}
}

// inForce is what is in force of a snapshot.
func inForce(snap *snapshot.Snapshot) *spine.Published {
	mesh, findings := compile.Mesh(snap)
	return &spine.Published{Snapshot: snap, Mesh: mesh, Findings: findings}
}

// TestStatesOfWhatCrosses: what the peer does not offer, and what our workload refuses, is nowhere called ready, and
// refused exports are not offered.
func TestStatesOfWhatCrosses(t *testing.T) {
	snap := withBank(t)
	p := inForce(snap)
	got := map[string]string{}
	for _, i := range snapshot.Of[*v1alpha1.FederatedImport](snap.Config) {
		got["import "+i.Name] = importStatus(p, i, func(model.Remote) string { return "" }).State
	}
	got["import money, closed there"] = importStatus(p, snapshot.Of[*v1alpha1.FederatedImport](snap.Config)[1],
		func(r model.Remote) string {
			return "peer " + r.Peer.Name + " lets nothing of this mesh through"
		}).State
	for _, e := range snapshot.Of[*v1alpha1.FederatedExport](snap.Config) {
		got["export "+e.Name] = exportStatus(p, e, 0).State
	}
	want := map[string]string{
		"import ledger": "peer bank offers default/ledger as TCP and the import says HTTP: no call succeeds",
		"import money":  "Ready",

		"import money, closed there": "peer bank lets nothing of this mesh through",
		"import mony":                "peer bank does not offer default/mony, so it serves nothing",
		"export gone":                "no endpoint of Service default/gone is ready at port 80, so every call fails",
		"export nothing":             "there is no Service default/nothing; nothing is exported",
		"export web": "every call of peer bank is refused by the workload behind default/web: " +
			"its AuthorizationPolicies allow none of the callers that the export lets through",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if c := checkConfig(p.AllFindings()); c.State != "failed" || !strings.HasPrefix(c.Detail, "ISM") {
		t.Errorf("check says %+v", c)
	}
	offered := []snapshot.OfferedService{
		{Namespace: "default", Name: "gone", Port: 80},
		{Namespace: "default", Name: "web", Port: 80},
	}
	var nothing *spine.Published
	if n := len(nothing.InEffect("bank", offered)); n != 2 {
		t.Errorf("before anything is compiled %d are offered", n)
	}
	if left := p.InEffect("bank", offered); len(left) != 1 || left[0].Name != "gone" {
		t.Errorf("offered are %v", left)
	}
	if left := p.InEffect("lab", offered); len(left) != 0 {
		t.Errorf("a peer that nothing is exported to is offered %v", left)
	}
}
