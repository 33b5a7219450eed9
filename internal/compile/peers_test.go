package compile

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
)

// TestTimeEndsAPeering: nothing changes but the clock, or an endpoint beside it, and the peering is over.
func TestTimeEndsAPeering(t *testing.T) {
	noon := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	peer := &v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: "retail"}, Spec: v1alpha1.MeshPeerSpec{
		TrustDomain: "retail.example", KnownAs: "cards", GatewayAddresses: []string{"192.0.2.1:15443"},
		GatewayIDs: []string{"spiffe://retail.example/ns/isthmus-system/sa/gateway"},
		Bundle:     v1alpha1.PeerBundle{Inline: newRoot(t, noon)},
		ExpiresAt:  &metav1.Time{Time: noon.Add(time.Hour)},
	}}
	at := func(now time.Time, bundle time.Duration, entries ...*networking.WorkloadEntry) *snapshot.Snapshot {
		return &snapshot.Snapshot{
			Time: now, Roots: []byte("roots"), Registry: &snapshot.Registry{},
			Peers: map[string]snapshot.PeerState{"retail": {BundleTime: noon.Add(-bundle)}},
			Config: &snapshot.Config{Objects: snapshot.ObjectsOf(
				&v1alpha1.Mesh{
					ObjectMeta: metav1.ObjectMeta{Name: "cards"},
					Spec:       v1alpha1.MeshSpec{TrustDomain: "cards.example"},
				},
				peer,
			).With(snapshot.PutAll(entries...))},
		}
	}
	entry := &networking.WorkloadEntry{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "vm"}}
	entry.Spec.Address = "10.0.0.1"
	later := func(old *snapshot.Snapshot, now time.Time, entries ...*networking.WorkloadEntry) *snapshot.Snapshot {
		s := *old
		s.Time, s.Config = now, old.Config.With(snapshot.PutAll(entries...))
		return &s
	}
	for name, tt := range map[string]struct {
		bundle  time.Duration
		after   time.Duration
		entries []*networking.WorkloadEntry
		live    bool
		known   bool
	}{
		"a minute later":                  {0, time.Minute, nil, true, true},
		"expired":                         {0, time.Hour, nil, false, false},
		"expired while an endpoint moved": {0, time.Hour, []*networking.WorkloadEntry{entry}, false, false},
		"stale":                           {23*time.Hour + 50*time.Minute, 10 * time.Minute, nil, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := Next(nil, at(noon, tt.bundle))
			if p := before.Mesh.Peers["retail"]; p == nil || !p.Live {
				t.Fatalf("the peer is not live to begin with: %v", before.Findings)
			}
			after := Next(before, later(before.Snapshot, noon.Add(tt.after), tt.entries...))
			p := after.Mesh.Peers["retail"]
			if (p != nil) != tt.known || p != nil && p.Live != tt.live {
				t.Errorf("got %+v", p)
			}
		})
	}
}

func newRoot(t *testing.T, now time.Time) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
