package peerrules

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
)

var noon = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

func newRoot(t testing.TB, notAfter time.Time, ca bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"},
		NotBefore: noon.Add(-time.Hour), NotAfter: notAfter, IsCA: ca, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func meshPeer(name, td string) *v1alpha1.MeshPeer {
	return &v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MeshPeerSpec{TrustDomain: td}}
}

// grown are roots as they are kept, learned from the first trust in p.
func grown(p *v1alpha1.MeshPeer, roots ...[]byte) []byte {
	return append([]byte("# isthmus first trust "+Anchor(p)+"\n"), bytes.Join(roots, nil)...)
}

func TestJudge(t *testing.T) {
	root := newRoot(t, noon.Add(48*time.Hour), true)
	old := newRoot(t, noon.Add(-time.Minute), true)
	leaf := newRoot(t, noon.Add(48*time.Hour), false)
	no := false
	type change func(*v1alpha1.MeshPeer, *snapshot.PeerState)
	tests := map[string]struct {
		change  change
		reason  Reason
		control bool
		says    string
		until   time.Time
	}{
		"live until stale": {func(*v1alpha1.MeshPeer, *snapshot.PeerState) {}, "", true, "", noon.Add(23 * time.Hour)},
		"live until it expires": {func(p *v1alpha1.MeshPeer, _ *snapshot.PeerState) {
			p.Spec.ExpiresAt = &metav1.Time{Time: noon.Add(time.Minute)}
		}, "", true, "", noon.Add(time.Minute)},
		"live without refresh until its root ends": {func(p *v1alpha1.MeshPeer, s *snapshot.PeerState) {
			p.Spec.Bundle.Refresh, s.BundleTime = &no, noon.Add(-1000*time.Hour)
		}, "", true, "", noon.Add(48 * time.Hour)},
		"revoked": {
			func(_ *v1alpha1.MeshPeer, s *snapshot.PeerState) { s.Revoked = true }, Revoked, false,
			"isthmus peer invite cards",
			time.Time{},
		},
		"suspended in the file": {
			func(p *v1alpha1.MeshPeer, _ *snapshot.PeerState) { p.Spec.Suspend = true }, Suspended, true,
			"remove spec.suspend",
			noon.Add(48 * time.Hour),
		},
		"suspended by command": {
			func(_ *v1alpha1.MeshPeer, s *snapshot.PeerState) { s.Suspended = true }, Suspended, true,
			"isthmus peer resume cards",
			noon.Add(48 * time.Hour),
		},
		"suspended without usable roots": {
			func(p *v1alpha1.MeshPeer, s *snapshot.PeerState) { s.Suspended, s.Roots = true, grown(p, old) },
			Suspended, false, "",
			time.Time{},
		},
		"suspended and expired": {func(p *v1alpha1.MeshPeer, s *snapshot.PeerState) {
			s.Suspended, p.Spec.ExpiresAt = true, &metav1.Time{Time: noon}
		}, Suspended, false, "", time.Time{}},
		"expired at this very moment": {func(p *v1alpha1.MeshPeer, _ *snapshot.PeerState) {
			p.Spec.ExpiresAt = &metav1.Time{Time: noon}
		}, Expired, false, "2026-08-01T12:00:00Z", time.Time{}},
		"no roots": {
			func(_ *v1alpha1.MeshPeer, s *snapshot.PeerState) { s.Roots = nil }, NoRoots, false,
			"spec.bundle.inline",
			time.Time{},
		},
		"roots of another td": {func(p *v1alpha1.MeshPeer,
			_ *snapshot.PeerState,
		) {
			p.Spec.TrustDomain = "other.example"
		}, NoRoots, false, "", time.Time{}},
		"roots of a first trust that was taken back": {func(p *v1alpha1.MeshPeer,
			_ *snapshot.PeerState,
		) {
			p.Spec.Bundle.Fingerprint = "aa"
		}, NoRoots, false, "", time.Time{}},
		"roots without a line saying where from": {func(_ *v1alpha1.MeshPeer,
			s *snapshot.PeerState,
		) {
			s.Roots = root
		}, NoRoots, false, "", time.Time{}},
		"other roots written down count at once": {func(p *v1alpha1.MeshPeer, s *snapshot.PeerState) {
			p.Spec.Bundle.Inline = string(newRoot(t, noon.Add(2*time.Hour), true))
			s.BundleTime = time.Time{}
		}, "", true, "", noon.Add(2 * time.Hour)},
		"expired root": {
			func(p *v1alpha1.MeshPeer, s *snapshot.PeerState) { s.Roots = grown(p, old) },
			RootsExpired, false, "ask its administrators",
			time.Time{},
		},
		"a leaf for a root": {
			func(p *v1alpha1.MeshPeer, s *snapshot.PeerState) { s.Roots = grown(p, leaf) },
			BadRoots, false, "CA:TRUE",
			time.Time{},
		},
		"not PEM": {func(p *v1alpha1.MeshPeer,
			s *snapshot.PeerState,
		) {
			s.Roots = grown(p, []byte("hello"))
		}, BadRoots, false, "BEGIN CERTIFICATE", time.Time{}},
		"one of two has ended": {func(p *v1alpha1.MeshPeer,
			s *snapshot.PeerState,
		) {
			s.Roots = grown(p, append(old, root...))
		}, "", true, "", noon.Add(23 * time.Hour)},
		"stale keeps its control traffic": {func(_ *v1alpha1.MeshPeer, s *snapshot.PeerState) {
			s.BundleTime = noon.Add(-24 * time.Hour)
		}, Stale, true, "more than 24h0m0s ago", time.Time{}},
		"stale by its own limit, without refresh": {func(p *v1alpha1.MeshPeer, _ *snapshot.PeerState) {
			p.Spec.Bundle.Refresh, p.Spec.MaxBundleAge = &no, &metav1.Duration{Duration: time.Minute}
		}, Stale, true, "more than 1m0s ago", time.Time{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := meshPeer("cards", "cards.example")
			s := snapshot.PeerState{Roots: grown(p, root), BundleTime: noon.Add(-time.Hour)}
			tt.change(p, &s)
			v := Judge(noon, p, s)
			if v.Reason != tt.reason || v.Live != (tt.reason == "") || v.Control != tt.control ||
				(v.Roots != nil) != tt.control {
				t.Fatalf("got %+v, want reason %q control %v", v, tt.reason, tt.control)
			}
			if !strings.Contains(v.Message, tt.says) {
				t.Errorf("message %q does not say %q", v.Message, tt.says)
			}
			if !v.Until.Equal(tt.until) {
				t.Errorf("until %v, want %v", v.Until, tt.until)
			}
		})
	}
	if v := Judge(noon, nil, snapshot.PeerState{}); v.Live || !strings.Contains(v.Message, "peer accept") {
		t.Errorf("nil peer: %v %q", v.Live, v.Message)
	}
}

func TestAllSeesWhatPeersMustNotShare(t *testing.T) {
	own, a, b := newRoot(t, noon.Add(time.Hour), true), newRoot(t, noon.Add(time.Hour), true),
		newRoot(t, noon.Add(time.Hour), true)
	state := func(td string, roots ...[]byte) snapshot.PeerState {
		return snapshot.PeerState{Roots: grown(meshPeer("any", td), roots...), BundleTime: noon}
	}
	thief := state("thief.example", b)
	thief.Revoked = true
	snap := &snapshot.Snapshot{
		Time: noon, Roots: own,
		Config: &snapshot.Config{Objects: snapshot.ObjectsOf(
			meshPeer("apart", "apart.example"),
			meshPeer("first", "first.example"),
			meshPeer("me", "own.example"),
			meshPeer("mine", "mine.example"),
			meshPeer("second", "second.example"),
			meshPeer("thief", "thief.example"),
			meshPeer("twin-a", "twin.example"),
			meshPeer("twin-b", "twin.example"),
		)},
		Peers: map[string]snapshot.PeerState{
			"apart": state("apart.example", b), "first": state("first.example", a),
			"me":     state("own.example", newRoot(t, noon.Add(time.Hour), true)),
			"mine":   state("mine.example", own),
			"second": state("second.example", newRoot(t, noon.Add(time.Hour), true), a), "thief": thief,
			"twin-a": state("twin.example", newRoot(t, noon.Add(time.Hour), true)),
			"twin-b": state("twin.example", newRoot(t, noon.Add(time.Hour), true)),
		},
	}
	want := map[string]Reason{
		"apart": "", "first": SharedRoot, "me": OwnTrustDomain, "mine": SharedRoot, "second": SharedRoot,
		"thief":  Revoked,
		"twin-a": SameTrustDomain, "twin-b": SameTrustDomain,
	}
	got := All(snap, "own.example")
	for name, reason := range want {
		if v := got[name]; v.Reason != reason || v.Live != (reason == "") {
			t.Errorf("%s: got %q live %v (%s), want %q", name, v.Reason, v.Live, v.Message, reason)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d verdicts, want %d", len(got), len(want))
	}
}

// A newer MeshPeer never puts an older one out, whatever it is called and whatever it claims. Where nobody knows which
// is the older one, neither stands.
func TestTheOlderPeerStands(t *testing.T) {
	a, b := newRoot(t, noon.Add(time.Hour), true), newRoot(t, noon.Add(time.Hour), true)
	tests := map[string]struct {
		newcomer        string
		domain          string
		roots           []byte
		age             time.Duration // the older one is an hour old
		older, newer    Reason
		says, saysOlder string
	}{
		"same trust domain": {
			"a-newcomer", "cards.example", b, time.Minute, "", SameTrustDomain, "claimed by peer cards too", "",
		},
		"same trust domain, later by name": {
			"z-newcomer", "cards.example", b, time.Minute, "", SameTrustDomain, "the oldest MeshPeer stands", "",
		},
		"same root": {
			"a-newcomer", "other.example", a, time.Minute, "", SharedRoot, "vouches for peer cards too", "",
		},
		"same root among others": {
			"a-newcomer", "other.example", append(append([]byte{}, b...), a...), time.Minute, "", SharedRoot,
			"vouches for peer cards too", "",
		},
		"both": {"a-newcomer", "cards.example", a, time.Minute, "", SameTrustDomain, "", ""},
		"the newcomer is older": {
			"z-newcomer", "cards.example", b, 2 * time.Hour, SameTrustDomain, "", "", "claimed by peer z-newcomer too",
		},
		"nobody knows, trust domain": {
			"a-newcomer", "cards.example", b, time.Hour, SameTrustDomain, SameTrustDomain, "claimed by peer cards",
			"claimed by peer a-newcomer",
		},
		"nobody knows, root": {
			"a-newcomer", "other.example", a, time.Hour, SharedRoot, SharedRoot, "vouches for peer cards",
			"vouches for peer a-newcomer",
		},
		"nothing shared": {"a-newcomer", "other.example", b, time.Minute, "", "", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			cards, other := meshPeer("cards", "cards.example"), meshPeer(tt.newcomer, tt.domain)
			snap := &snapshot.Snapshot{
				Time: noon,
				Config: &snapshot.Config{Objects: snapshot.ObjectsOf(
					other,
					cards,
				).WithOrigins(map[snapshot.Key]snapshot.Origin{
					{Kind: "MeshPeer", Name: "cards"}:     {FirstSeen: noon.Add(-time.Hour)},
					{Kind: "MeshPeer", Name: tt.newcomer}: {FirstSeen: noon.Add(-tt.age)},
				})},
				Peers: map[string]snapshot.PeerState{
					"cards":     {Roots: grown(cards, a), BundleTime: noon},
					tt.newcomer: {Roots: grown(other, tt.roots), BundleTime: noon},
				},
			}
			got := All(snap, "own.example")
			if v := got["cards"]; v.Reason != tt.older || !strings.Contains(v.Message, tt.saysOlder) {
				t.Errorf("cards: %q %s", v.Reason, v.Message)
			}
			if v := got[tt.newcomer]; v.Reason != tt.newer || !strings.Contains(v.Message, tt.says) {
				t.Errorf("%s: %q %s", tt.newcomer, v.Reason, v.Message)
			}
		})
	}
}

func TestAnchor(t *testing.T) {
	a, b := newRoot(t, noon.Add(time.Hour), true), newRoot(t, noon.Add(time.Hour), true)
	base := meshPeer("cards", "cards.example")
	base.Spec.Bundle.Inline = string(a) + string(b)
	same, other := base.DeepCopy(), base.DeepCopy()
	same.Name, same.Spec.Suspend, same.Spec.GatewayAddresses = "else", true, []string{"192.0.2.1:1"}
	same.Spec.Bundle.Inline = "\n" + string(b) + "\n\n" + string(a)
	other.Spec.Bundle.Inline = string(a)
	if Anchor(base) != Anchor(same) {
		t.Error("order and white space of the roots count")
	}
	if Anchor(base) == Anchor(other) {
		t.Error("a root fewer does not count")
	}
}
