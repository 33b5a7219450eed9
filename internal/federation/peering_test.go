package federation

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

func TestTwoMeshesBecomePeers(t *testing.T) {
	cards, retail, _ := pair(t)
	p := join(t, cards, retail)
	want := Peering{
		Peer: "cards", TrustDomain: "cards.example", KnownAs: "retail",
		OwnFingerprint: p.OwnFingerprint, PeersFingerprint: p.PeersFingerprint,
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
	// Both sides show the same two fingerprints.
	for m, want := range map[*mesh][2]string{
		cards: {p.PeersFingerprint, p.OwnFingerprint}, retail: {p.OwnFingerprint, p.PeersFingerprint},
	} {
		own, err := m.Fingerprint()
		if err != nil {
			t.Fatal(err)
		}
		other := snapshot.Of[*v1alpha1.MeshPeer](m.snapshot().Config)[0]
		if got := [2]string{own, peerrules.FingerprintOf(other, m.snapshot().Peers[other.Name])}; got != want ||
			own == got[1] || len(own) != 64 {
			t.Errorf("%s shows %v, want %v", m.td, got, want)
		}
	}
	for _, tt := range []struct {
		at     *mesh
		name   string
		spec   v1alpha1.MeshPeerSpec
		theirs *mesh
	}{
		{cards, "retail", v1alpha1.MeshPeerSpec{
			TrustDomain: "retail.example", KnownAs: "cards", GatewayAddresses: []string{"192.0.2.2:15443"},
			GatewayIDs: []string{"spiffe://retail.example/ns/isthmus-system/sa/gateway"},
		}, retail},
		{retail, "cards", v1alpha1.MeshPeerSpec{
			TrustDomain: "cards.example", KnownAs: "retail", GatewayAddresses: []string{"192.0.2.1:15443"},
			GatewayIDs: []string{"spiffe://cards.example/ns/isthmus-system/sa/gateway"},
		}, cards},
	} {
		snap := tt.at.snapshot()
		if len(snapshot.Of[*v1alpha1.MeshPeer](snap.Config)) != 1 || len(snap.Invites) != 0 ||
			len(snap.Bootstraps) != 0 {
			t.Fatalf("%s: %d peers, %d invitations, %d bootstraps", tt.name,
				len(snapshot.Of[*v1alpha1.MeshPeer](snap.Config)), len(snap.Invites), len(snap.Bootstraps))
		}
		got := snapshot.Of[*v1alpha1.MeshPeer](snap.Config)[0]
		tt.spec.Bundle.Inline = string(peerrules.EncodeRoots([]*x509.Certificate{tt.theirs.root.cert}))
		if diff := cmp.Diff(tt.spec, got.Spec); diff != "" || got.Name != tt.name {
			t.Errorf("%s: %s", got.Name, diff)
		}
		if v := peerrules.All(snap, tt.at.td.Name())[tt.name]; !v.Live {
			t.Errorf("%s is not live: %s", tt.name, v.Message)
		}
	}
}

func TestPeersExchangeCatalogues(t *testing.T) {
	cards, retail, _ := pair(t)
	cards.live()
	retail.live()
	join(t, cards, retail)
	cards.edit(func(c *snapshot.Config) {
		c.Objects = snapshot.ObjectsOf(
			&corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "payments"},
				Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 8080}}},
			},
			&v1alpha1.FederatedExport{
				ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "payments"},
				Spec: v1alpha1.FederatedExportSpec{
					Service: "payments", Port: 8080, To: []v1alpha1.ExportTo{{Peer: "retail"}},
				},
			},
		)
	})
	offered := func() []snapshot.OfferedService {
		if c := retail.snapshot().Peers["cards"].Catalogue; c != nil {
			return c.Services
		}
		return nil
	}
	eventually(t, "retail is offered payments", func() bool { return len(offered()) == 1 })
	if diff := cmp.Diff([]snapshot.OfferedService{{
		Name: "payments", Namespace: "default", Port: 8080, Protocol: "HTTP",
	}}, offered()); diff != "" {
		t.Error(diff)
	}
	eventually(t, "cards knows that retail has it", func() bool {
		h := cards.Health("retail")
		return h.Behind.IsZero() && !h.PushOK.IsZero()
	})
	cards.edit(func(c *snapshot.Config) {
		var gone snapshot.Change
		gone.Remove(snapshot.Key{Kind: "FederatedExport", Namespace: "default", Name: "payments"})
		c.Objects = c.Objects.With(gone)
	})
	eventually(t, "retail is offered nothing", func() bool { return offered() != nil && len(offered()) == 0 })
}

func TestConditionsOfTwoPeers(t *testing.T) {
	cards, retail, n := pair(t)
	join(t, cards, retail)
	cards.live()
	retail.live()
	status := func(m *mesh, name string) string {
		var all []string
		for _, c := range m.ConditionsOf(m.meshPeer(name)) {
			all = append(all, c.Type+"="+c.Status+"/"+c.Reason)
		}
		return strings.Join(all, " ")
	}
	const ready = "TrustEstablished=True/RootsKnown BundleFresh=True/Confirmed CatalogueSynced=True/Synced DataPathReady=True/Answered " +
		"Expiring=False/NotSoon Suspended=False/NotSuspended Revoked=False/NotRevoked"
	eventually(t, "cards is ready", func() bool { return status(retail, "cards") == ready })
	eventually(t, "retail is ready", func() bool { return status(cards, "retail") == ready })
	n.setCut(true)
	eventually(t, "retail sees the cut", func() bool {
		return strings.Contains(status(retail, "cards"), "BundleFresh=True/RefreshFailing") &&
			strings.Contains(status(retail, "cards"), "DataPathReady=False/Unreachable")
	})
	retail.skip(25 * time.Hour)
	if s := status(retail, "cards"); !strings.Contains(s, "BundleFresh=False/Stale") ||
		!strings.Contains(s, "DataPathReady=False/Stale") {
		t.Error(s)
	}
	if peerrules.Judge(retail.now(), retail.meshPeer("cards"), retail.snapshot().Peers["cards"]).Live {
		t.Error("a stale peer is live")
	}
}

// A mesh whose gateways could pass nothing on to its control plane makes no peering, and says what its settings lack.
func TestNoPeeringWithoutAnAddress(t *testing.T) {
	cards, retail, _ := pair(t)
	i, err := cards.Invite(t.Context(), "retail", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	cards.reachedAt, retail.reachedAt = nil, nil
	_, invite := cards.Invite(t.Context(), "other", time.Minute)
	_, accept := retail.Accept(t.Context(), i.Token.Encode(), "")
	_, _, manifest := cards.Manifest("cards", "retail")
	for what, err := range map[string]error{"invite": invite, "accept": accept, "manifest": manifest} {
		if err == nil || !strings.Contains(err.Error(), "into its settings (names: {ips: [ADDRESS]})") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
