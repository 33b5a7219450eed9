package federation

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/waittest"
)

func TestNewRootsFollowByRefresh(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	retail.live()
	next := newAuthority(t, "next")
	before := retail.snapshot().Peers["cards"].BundleSequence
	cards.setRoots(cards.root.cert, next.cert)
	eventually(t, "retail trusts both roots", func() bool {
		certs, err := peerrules.ParseRoots(peerrules.Roots(retail.meshPeer("cards"), retail.snapshot().Peers["cards"]))
		return err == nil && len(certs) == 2 && sameRoots(certs, []*x509.Certificate{cards.root.cert, next.cert})
	})
	if after := retail.snapshot().Peers["cards"].BundleSequence; after <= before {
		t.Errorf("sequence %d after %d", after, before)
	}
}

func TestTakeBundleRefuses(t *testing.T) {
	t.Parallel()
	cards, retail, n := pair(t)
	bank := newMesh(t, n, "bank", "192.0.2.3")
	join(t, cards, retail)
	i, err := bank.Invite(t.Context(), "retail", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := retail.Accept(t.Context(), i.Token.Encode(), ""); err != nil {
		t.Fatal(err)
	}
	held := retail.snapshot().Peers["cards"].BundleSequence
	next := newAuthority(t, "next")
	roots := func(certs ...*x509.Certificate) []*x509.Certificate { return certs }
	tests := map[string]struct {
		bundle Bundle
		says   string
	}{
		"sequence goes back": {Bundle{Sequence: held - 1, Roots: roots(cards.root.cert)}, "its sequence went back"},
		"sequence stands still": {
			Bundle{Sequence: held, Roots: roots(next.cert)},
			"the same as before, its roots are not",
		},
		"our root": {
			Bundle{Sequence: held + 1, Roots: roots(cards.root.cert, retail.root.cert)},
			"one of this mesh's own",
		},
		"another peer's root": {
			Bundle{Sequence: held + 1, Roots: roots(cards.root.cert, bank.root.cert)},
			"is one of peer bank",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.bundle.TrustDomain = cards.td
			refusedWith(t, retail.takeBundle(t.Context(), "cards", tt.bundle), tt.says)
		})
	}
	state := retail.snapshot().Peers["cards"]
	if certs, err := peerrules.ParseRoots(state.Roots); err != nil || !sameRoots(certs, roots(cards.root.cert)) ||
		state.BundleSequence != held {
		t.Error("a refused bundle has left something")
	}
	if err := retail.takeBundle(t.Context(), "cards",
		Bundle{TrustDomain: cards.td, Sequence: held, Roots: roots(cards.root.cert)}); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := retail.takeBundle(t.Context(), "cards",
		Bundle{TrustDomain: cards.td, Sequence: held + 5, Roots: roots(next.cert)}); err != nil {
		t.Errorf("newer: %v", err)
	}
}

func TestSuspendAndResume(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	cards.live()
	retail.live()
	eventually(t, "they talk", func() bool { return !cards.Health("retail").PushOK.IsZero() })
	if err := retail.Suspend(t.Context(), "cards"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "cards hears of it", func() bool { return cards.Health("retail").ClosedThere })
	if v := peerrules.All(retail.snapshot(), "retail.example")["cards"]; v.Live || !v.Control ||
		v.Reason != peerrules.Suspended {
		t.Errorf("%+v", v)
	}
	if c := cards.ConditionsOf(cards.meshPeer("retail"))[3]; c.Status != "False" || c.Reason != "ClosedByPeer" {
		t.Errorf("%+v", c)
	}
	if err := retail.Resume(t.Context(), "cards"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they talk again", func() bool {
		return cards.Health("retail").RefreshError == "" && !cards.Health("retail").ClosedThere &&
			peerrules.All(retail.snapshot(), "retail.example")["cards"].Live
	})
	refusedWith(t, retail.Suspend(t.Context(), "stranger"), "'isthmus peer list' shows all")
}

// A peer that is suspended while a root is replaced, here or there, is still known when it is resumed.
func TestSuspendedWhileTheRootIsReplaced(t *testing.T) {
	t.Parallel()
	for name, rotates := range map[string]string{"by the suspended": "cards", "by the suspending": "retail"} {
		t.Run(name, func(t *testing.T) {
			cards, retail, _ := pair(t, slow)
			join(t, cards, retail)
			cards.live()
			retail.live()
			eventually(t, "they talk", func() bool {
				return cards.told("retail").InForce &&
					retail.told("cards").InForce
			})
			if err := retail.Suspend(t.Context(), "cards"); err != nil {
				t.Fatal(err)
			}
			m, other := cards, retail
			peer, self := "retail", "cards"
			if rotates == "retail" {
				m, other, peer, self = retail, cards, "cards", "retail"
			}
			next := newAuthority(t, "next")
			m.setRoots(m.root.cert, next.cert)
			m.Wake()
			eventually(t, "both roots known", func() bool { return m.told(peer).InForce && len(other.held(self)) == 2 })
			m.rotate(next)
			m.Wake()
			eventually(t, "the new root alone", func() bool {
				return slices.Equal(other.held(self), []string{spiffe.Fingerprint(next.cert)})
			})
			if v := peerrules.All(retail.snapshot(), "retail.example")["cards"]; v.Live {
				t.Error("live while suspended")
			}
			if err := retail.Resume(t.Context(), "cards"); err != nil {
				t.Fatal(err)
			}
			for m, name := range map[*mesh]string{cards: "retail", retail: "cards"} {
				if !peerrules.All(m.snapshot(), m.td.Name())[name].Live {
					t.Errorf("%s is not live", name)
				}
				if _, err := m.fetchBundle(t.Context(), m.meshPeer(name)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// Of what a suspended peer's control plane says only roots are heard.
func TestSuspendedPeerOffersNothing(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	if err := cards.Suspend(t.Context(), "retail"); err != nil {
		t.Fatal(err)
	}
	peer := cards.asPeer(retail, "retail")
	if code, text := cards.post(peer, PathCatalogue, strings.NewReader(`{"sequence":1,"services":[]}`)); code != 403 {
		t.Errorf("catalogue: %d %s", code, text)
	}
	if code, text := cards.post(peer, PathBundle, nil); code != 200 {
		t.Errorf("bundle: %d %s", code, text)
	}
	if err := cards.Revoke(t.Context(), "retail"); err != nil {
		t.Fatal(err)
	}
	if code, text := cards.post(peer, PathBundle, nil); code != 403 {
		t.Errorf("bundle, revoked: %d %s", code, text)
	}
}

func TestRevokedStaysRevokedUntilPeeredAnew(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	for _, m := range []*mesh{cards, retail} {
		for name := range m.snapshot().Peers {
			if err := m.Revoke(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	state := retail.snapshot().Peers["cards"]
	if state.Roots != nil || state.Catalogue != nil || !state.Revoked {
		t.Errorf("something is left: %+v", state)
	}
	refusedWith(t, retail.Resume(t.Context(), "cards"), "is revoked, which no command undoes")
	refusedWith(t, retail.takeBundle(t.Context(), "cards",
		Bundle{TrustDomain: cards.td, Sequence: 99, Roots: []*x509.Certificate{cards.root.cert}}), "revoked")
	if v := peerrules.All(retail.snapshot(), "retail.example")["cards"]; v.Reason != peerrules.Revoked {
		t.Errorf("%+v", v)
	}
	join(t, cards, retail)
	for _, m := range []*mesh{cards, retail} {
		for name, v := range peerrules.All(m.snapshot(), m.td.Name()) {
			if !v.Live {
				t.Errorf("%s: %s", name, v.Message)
			}
		}
	}
}

// fromFile reads what Manifest wrote as the configuration folder would.
func fromFile(t *testing.T, m *mesh, as, knownAs string) *v1alpha1.MeshPeer {
	t.Helper()
	text, print, err := m.Manifest(as, knownAs)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, print) {
		t.Error("the file does not show the fingerprint")
	}
	p := &v1alpha1.MeshPeer{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return p
}

func (m *mesh) write(peers ...*v1alpha1.MeshPeer) {
	m.edit(func(c *snapshot.Config) {
		var filed snapshot.Change
		for _, p := range peers {
			filed.Put(snapshot.NewObject(p, snapshot.Origin{Source: snapshot.SourceFile, File: "peers.yaml", Line: 1}))
		}
		c.Objects = (*snapshot.Objects)(nil).With(filed)
	})
}

func TestPeeringByTwoFiles(t *testing.T) {
	cards, retail, _ := pair(t)
	file := fromFile(t, cards, "", "shop")
	if file.Name != "cards" || file.Kind != "MeshPeer" || file.APIVersion != "isthmus.dev/v1alpha1" ||
		file.Spec.KnownAs != "shop" ||
		file.Spec.TrustDomain != "cards.example" || file.Spec.GatewayAddresses[0] != "192.0.2.1:15443" ||
		file.Spec.GatewayIDs[0] != "spiffe://cards.example/ns/isthmus-system/sa/gateway" {
		t.Errorf("%+v", file)
	}
	retail.write(file)
	cards.write(fromFile(t, retail, "shop", "cards"))
	cards.live()
	retail.live()
	for m, name := range map[*mesh]string{cards: "shop", retail: "cards"} {
		eventually(t, name+" is refreshed", func() bool {
			return m.snapshot().Peers[name].BundleSequence > 0 && peerrules.All(m.snapshot(), m.td.Name())[name].Live
		})
	}

	// Revoked by command, the file has no effect: not after another look, not changed.
	if err := retail.Revoke(t.Context(), "cards"); err != nil {
		t.Fatal(err)
	}
	changed := file.DeepCopy()
	changed.Spec.Bundle.Inline = string(peerrules.EncodeRoots([]*x509.Certificate{
		cards.root.cert,
		newAuthority(t, "x").cert,
	}))
	for _, f := range []*v1alpha1.MeshPeer{file, changed} {
		retail.write()
		retail.write(f)
		waittest.Quiet(100 * time.Millisecond)
		if v := peerrules.All(retail.snapshot(), "retail.example")["cards"]; v.Reason != peerrules.Revoked ||
			retail.snapshot().Peers["cards"].Roots != nil {
			t.Errorf("%+v", v)
		}
	}
	_, err := retail.Invite(t.Context(), "cards", time.Minute)
	refusedWith(t, err, "take its MeshPeer out first")
	retail.write()
	if _, err := retail.Invite(t.Context(), "cards", time.Minute); err != nil {
		t.Error(err)
	}
}

func TestAnotherFirstTrustReplacesWhatWasLearned(t *testing.T) {
	cards, retail, n := pair(t)
	retail.write(fromFile(t, cards, "", "retail"))
	cards.write(fromFile(t, retail, "", "cards"))
	cards.live()
	retail.live()
	eventually(t, "refreshed", func() bool { return retail.snapshot().Peers["cards"].BundleSequence > 0 })
	if err := retail.Suspend(t.Context(), "cards"); err != nil {
		t.Fatal(err)
	}
	// Cards is built anew: another root, sequences from the beginning.
	anew := newMesh(t, n, "cards", "192.0.2.1")
	retail.write(fromFile(t, anew, "", "retail"))
	eventually(t, "the new root is taken, the suspension kept", func() bool {
		s := retail.snapshot().Peers["cards"]
		certs, err := peerrules.ParseRoots(s.Roots)
		return err == nil && sameRoots(certs, []*x509.Certificate{anew.root.cert}) && s.BundleSequence == 0 &&
			s.Suspended
	})
}

// A file cannot make a root vouch for two trust domains either.
func TestFileWithSharedRootIsNotTaken(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	twin := fromFile(t, cards, "twin", "retail")
	twin.Spec.TrustDomain, twin.Spec.GatewayIDs = "twin.example", []string{"spiffe://twin.example/ns/a/sa/b"}
	retail.write(twin)
	retail.adoptAll(t.Context())
	if retail.snapshot().Peers["twin"].Roots != nil {
		t.Error("taken")
	}
	if h := retail.Health("twin"); !strings.Contains(h.AdoptError, "is one of peer cards") {
		t.Errorf("%+v", h)
	}
}

func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	cards, retail, n := pair(t)
	join(t, cards, retail)
	cards.live()
	retail.live()
	eventually(t, "they talk", func() bool { return !retail.Health("cards").PushOK.IsZero() })
	n.setCut(true)
	eventually(t, "they notice", func() bool { return retail.Health("cards").RefreshError != "" })
	retail.skip(25 * time.Hour)
	live := func() bool { return peerrules.All(retail.snapshotNow(), "retail.example")["cards"].Live }
	if live() {
		t.Error("stale and live")
	}
	n.setCut(false)
	eventually(t, "the peer comes back by itself", live)
}

func TestRunTellsWhenTimeAloneChangesThings(t *testing.T) {
	t.Parallel()
	told := make(chan struct{}, 100)
	_, retail, _ := pair(t, func(_ *mesh, c *Config) { c.Changed = func() { told <- struct{}{} } })
	retail.live()
	if _, err := retail.Invite(t.Context(), "cards", time.Second); err != nil {
		t.Fatal(err)
	}
	retail.Wake()
	began := time.Now()
	select {
	case <-told:
		if took := time.Since(began); took < 500*time.Millisecond {
			t.Errorf("told after %s", took)
		}
		if len(retail.snapshot().Invites) != 0 {
			t.Error("told too early")
		}
	case <-time.After(4 * time.Second):
		t.Error("never told that the invitation ended")
	}
}

// Of two files one may give a fingerprint only: the root is fetched and must match.
func TestFirstRootByFingerprint(t *testing.T) {
	t.Parallel()
	cards, retail, n := pair(t)
	file := fromFile(t, cards, "", "retail")
	file.Spec.Bundle = v1alpha1.PeerBundle{Fingerprint: spiffe.Fingerprint(cards.root.cert)}
	evil := newMesh(t, n, "cards", "192.0.2.1") // in the place of cards at first
	evil.write(fromFile(t, retail, "", "cards"))
	retail.write(file)
	retail.live()
	eventually(t, "the impostor is noticed", func() bool {
		return strings.Contains(retail.Health("cards").RefreshError, "does not hold the root of fingerprint")
	})
	if v := peerrules.All(retail.snapshot(), "retail.example")["cards"]; v.Reason != peerrules.NoRoots {
		t.Errorf("%+v", v)
	}
	cards.write(fromFile(t, retail, "", "cards"))
	cards.live()
	n.route("192.0.2.1:15443", cards.listening)
	eventually(t, "the root is fetched, then refreshed", func() bool {
		return retail.snapshot().Peers["cards"].BundleSequence > 0 &&
			peerrules.All(retail.snapshot(), "retail.example")["cards"].Live
	})
}

// A newer MeshPeer with an older one's root gets nothing, and does not keep the older one's roots from being refreshed.
func TestNewerPeerWithTheSameRootBlocksNothing(t *testing.T) {
	t.Parallel()
	cards, retail, _ := pair(t)
	old, twin := fromFile(t, cards, "", "retail"), fromFile(t, cards, "a-twin", "retail")
	twin.Spec.TrustDomain, twin.Spec.GatewayIDs = "twin.example", []string{"spiffe://twin.example/ns/a/sa/b"}
	retail.edit(func(c *snapshot.Config) {
		c.Objects = snapshot.ObjectsOf(twin, old).WithOrigins(map[snapshot.Key]snapshot.Origin{
			{Kind: "MeshPeer", Name: "cards"}: {Source: snapshot.SourceFile, File: "old.yaml", FirstSeen: noon},
			{Kind: "MeshPeer", Name: "a-twin"}: {
				Source: snapshot.SourceFile, File: "a.yaml", FirstSeen: noon.Add(time.Second),
			},
		})
	})
	retail.adoptAll(t.Context())
	if retail.snapshot().Peers["cards"].Roots == nil || retail.snapshot().Peers["a-twin"].Roots != nil {
		t.Error("the older one's roots were not taken, or the newer one's were")
	}
	next := newAuthority(t, "next")
	sequence := uint64(time.Now().UnixMicro())
	if err := retail.takeBundle(t.Context(), "cards",
		Bundle{TrustDomain: cards.td, Sequence: sequence, Roots: certs(cards.root, next)}); err != nil {
		t.Error(err)
	}
	verdicts := peerrules.All(retail.snapshot(), "retail.example")
	if !verdicts["cards"].Live || verdicts["a-twin"].Reason != peerrules.SharedRoot {
		t.Errorf("%+v", verdicts)
	}
}
