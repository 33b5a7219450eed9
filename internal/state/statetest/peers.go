package statetest

import (
	"context"
	"math"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

func meshPeer(name string) *v1alpha1.MeshPeer {
	return &v1alpha1.MeshPeer{
		TypeMeta:   metav1.TypeMeta{APIVersion: "isthmus.dev/v1alpha1", Kind: "MeshPeer"},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.MeshPeerSpec{
			TrustDomain: name + ".example", KnownAs: "cards", GatewayAddresses: []string{"192.0.2.2:15443"},
			GatewayIDs: []string{"spiffe://" + name + ".example/ns/isthmus-system/sa/gateway"},
		},
	}
}

// PeerOf returns one of the stored peers.
func PeerOf(ctx context.Context, s state.Store, name string) (state.Peer, error) {
	all, err := s.Peers(ctx)
	if err != nil {
		return state.Peer{}, err
	}
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
	}
	return state.Peer{}, state.ErrNotFound
}

func peers(t *testing.T, s state.Store) {
	ctx := t.Context()
	_, err := PeerOf(ctx, s, "retail")
	wantErr(t, err, state.ErrNotFound)
	ok(t, s.EstablishPeer(ctx, meshPeer("retail"), []byte("roots 1"), 7, epoch))
	ok(t, s.SetPeerSuspended(ctx, "filed", true)) // of a peer defined in a file
	cat := snapshot.Catalogue{
		Sequence: 3, Time: epoch,
		Services: []snapshot.OfferedService{{Name: "orders", Namespace: "default", Port: 80, Protocol: "HTTP"}},
	}
	ok(t, s.SetPeerCatalogue(ctx, "retail", cat, 0))
	got, err := s.Peers(ctx)
	ok(t, err)
	same(t, got, []state.Peer{
		{Name: "filed", State: snapshot.PeerState{Suspended: true}},
		{
			Name: "retail", Object: meshPeer("retail"), Made: epoch,
			State: snapshot.PeerState{Roots: []byte("roots 1"), BundleSequence: 7, BundleTime: epoch, Catalogue: &cat},
		},
	})
	shorter := meshPeer("retail")
	shorter.Spec.MaxBundleAge = &metav1.Duration{Duration: time.Hour}
	ok(t, s.SetPeerObject(ctx, shorter))
	changed, err := PeerOf(ctx, s, "retail")
	ok(t, err)
	same(t, changed, state.Peer{
		Name: "retail", Object: shorter, Made: epoch,
		State: snapshot.PeerState{Roots: []byte("roots 1"), BundleSequence: 7, BundleTime: epoch, Catalogue: &cat},
	})
	wantErr(t, s.SetPeerObject(ctx, meshPeer("filed")), state.ErrRevoked) // defined in a file
	wantErr(t, s.SetPeerObject(ctx, meshPeer("nobody")), state.ErrRevoked)
	ok(t, s.SetPeerSuspended(ctx, "filed", false))
	one, err := PeerOf(ctx, s, "filed")
	ok(t, err)
	same(t, one, state.Peer{Name: "filed"})
}

func peerRoots(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.SetPeerBundle(ctx, "retail", []byte("roots 5"), 5, 0, epoch))
	wantErr(t, s.SetPeerBundle(ctx, "retail", []byte("roots"), math.MaxUint64, 5, after(time.Hour)), state.ErrSequence)
	wantErr(t, s.SetPeerBundle(ctx, "retail", []byte("roots 4"), 6, 4, after(time.Hour)), state.ErrSuperseded)
	ok(t, s.SetPeerBundle(ctx, "retail", []byte("roots 6"), 6, 5, after(2*time.Hour)))
	cat := snapshot.Catalogue{Sequence: math.MaxUint64, Time: epoch, Services: []snapshot.OfferedService{}}
	ok(t, s.SetPeerCatalogue(ctx, "retail", cat, 0))
	one, err := PeerOf(ctx, s, "retail")
	ok(t, err)
	same(t, one.State, snapshot.PeerState{
		Roots: []byte("roots 6"), BundleSequence: 6, BundleTime: after(2 * time.Hour),
		Catalogue: &cat,
	})

	// Another first trust removes what grew from the previous one, but not a suspension.
	ok(t, s.EstablishPeer(ctx, meshPeer("bank"), []byte("roots 1"), 7, epoch))
	ok(t, s.SetPeerCatalogue(ctx, "bank", cat, 0))
	ok(t, s.SetPeerSuspended(ctx, "bank", true))
	for _, name := range []string{"bank", "fresh"} {
		ok(t, s.AdoptPeerRoots(ctx, name, []byte("others"), after(time.Hour)))
		one, err = PeerOf(ctx, s, name)
		ok(t, err)
		same(t, one,
			state.Peer{Name: name, State: snapshot.PeerState{
				Roots: []byte("others"), BundleTime: after(time.Hour), Suspended: name == "bank",
			}})
	}
}

// whatPeersSay tests that of two writers, the one that knew the previous value succeeds.
func whatPeersSay(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.EstablishPeer(ctx, meshPeer("retail"), []byte("roots"), 7, epoch))
	cat := func(n uint64) snapshot.Catalogue { return snapshot.Catalogue{Sequence: n, Time: epoch} }
	ready := func(n uint64) snapshot.Readiness {
		return snapshot.Readiness{
			Sequence: n,
			Unready:  []snapshot.OfferedName{{Namespace: "default", Name: "payments"}},
		}
	}
	ok(t, s.SetPeerCatalogue(ctx, "retail", cat(5), 0))
	ok(t, s.SetPeerCatalogue(ctx, "retail", cat(7), 5))
	wantErr(t, s.SetPeerCatalogue(ctx, "retail", cat(6), 5), state.ErrSuperseded)
	ok(t, s.SetPeerReadiness(ctx, "retail", ready(math.MaxUint64), 0))
	wantErr(t, s.SetPeerReadiness(ctx, "retail", ready(3), 0), state.ErrSuperseded)
	wantErr(t, s.SetPeerReadiness(ctx, "nobody", ready(3), 0), state.ErrSuperseded)
	one, err := PeerOf(ctx, s, "retail")
	ok(t, err)
	c, r := cat(7), ready(math.MaxUint64)
	same(t, one.State, snapshot.PeerState{
		Roots: []byte("roots"), BundleSequence: 7, BundleTime: epoch, Catalogue: &c,
		Readiness: &r,
	})
	ok(t, s.RevokePeer(ctx, "retail", epoch))
	wantErr(t, s.SetPeerReadiness(ctx, "retail", ready(4), 0), state.ErrRevoked)
	one, err = PeerOf(ctx, s, "retail")
	ok(t, err)
	same(t, one.State, snapshot.PeerState{BundleSequence: 7, Suspended: true})
}

func revokedPeer(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.EstablishPeer(ctx, meshPeer("retail"), []byte("roots"), 7, epoch))
	ok(t, s.SetPeerCatalogue(ctx, "retail", snapshot.Catalogue{Sequence: 3}, 0))
	ok(t, s.AddInvite(ctx, invite("a"))) // for retail
	ok(t, s.RevokePeer(ctx, "retail", after(time.Minute)))
	wantErr(t, s.SetPeerBundle(ctx, "retail", []byte("roots"), 8, 7, after(time.Hour)), state.ErrRevoked)
	wantErr(t, s.SetPeerCatalogue(ctx, "retail", snapshot.Catalogue{Sequence: 4}, 3), state.ErrRevoked)
	wantErr(t, s.AdoptPeerRoots(ctx, "retail", []byte("roots"), after(time.Hour)), state.ErrRevoked)
	_, err := s.UseInvite(ctx, "a", hash("secret of a"), "198.51.100.4", after(2*time.Minute))
	wantErr(t, err, state.ErrNotFound)
	one, err := PeerOf(ctx, s, "retail")
	ok(t, err)
	same(t, one, state.Peer{
		Name: "retail", Object: meshPeer("retail"), Made: epoch, Revoked: after(time.Minute),
		State: snapshot.PeerState{BundleSequence: 7, Suspended: true},
	})
	// New consent, by a mesh that may have been rebuilt.
	ok(t, s.EstablishPeer(ctx, meshPeer("retail"), []byte("new roots"), 1, after(time.Hour)))
	one, err = PeerOf(ctx, s, "retail")
	ok(t, err)
	same(t, one, state.Peer{
		Name: "retail", Object: meshPeer("retail"), Made: after(time.Hour),
		State: snapshot.PeerState{Roots: []byte("new roots"), BundleSequence: 1, BundleTime: after(time.Hour)},
	})
	ok(t, s.RevokePeer(ctx, "never met", epoch)) // overrides a file written later
	wantErr(t, s.SetPeerBundle(ctx, "never met", []byte("roots"), 1, 0, epoch), state.ErrRevoked)
}

func sequences(t *testing.T, s state.Store) {
	first := uint64(epoch.UnixMicro())
	for _, step := range []struct {
		name, of string
		at       time.Time
		want     uint64
	}{
		{"bundle", "", epoch, first},
		{"bundle", "", epoch, first + 1},
		{"bundle", "", epoch.Add(-30 * time.Second), first + 2}, // the clock was set back a little
		{"catalogue", "", epoch, first},
		{"bundle", "", after(time.Hour), first + 3_600_000_000},
		{"bundle", "", epoch, first}, // the clock was an hour ahead
		{"set", "one", epoch, first},
		{"set", "one", after(time.Hour), first},
		{"set", "two", epoch, first + 1},
		{"set", "one", epoch, first + 2},
	} {
		got, err := s.NextSequence(t.Context(), step.name, step.of, step.at)
		ok(t, err)
		same(t, got, step.want)
	}
}
