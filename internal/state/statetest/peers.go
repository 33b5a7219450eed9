package statetest

import (
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

func peers(t *testing.T, s Store) {
	ctx := t.Context()
	_, err := s.Peer(ctx, "retail")
	wantErr(t, err, state.ErrNotFound)
	ok(t, s.EstablishPeer(ctx, meshPeer("retail"), []byte("roots 1"), 7, epoch))
	ok(t, s.SetPeerSuspended(ctx, "filed", true)) // of a peer whose object is a file
	cat := snapshot.Catalogue{Sequence: 3, Time: epoch, Services: []snapshot.OfferedService{{Name: "orders", Namespace: "default", Port: 80, Protocol: "HTTP"}}}
	ok(t, s.SetPeerCatalogue(ctx, "retail", cat))
	ok(t, s.SetPeerPushed(ctx, "retail", 4, "digest"))
	got, err := s.Peers(ctx)
	ok(t, err)
	same(t, got, []state.Peer{
		{Name: "filed", State: snapshot.PeerState{Suspended: true}},
		{
			Name: "retail", Object: meshPeer("retail"), PushedSequence: 4, PushedDigest: "digest",
			State: snapshot.PeerState{Roots: []byte("roots 1"), BundleSequence: 7, BundleTime: epoch, Catalogue: &cat},
		},
	})
	ok(t, s.SetPeerSuspended(ctx, "filed", false))
	one, err := s.Peer(ctx, "filed")
	ok(t, err)
	same(t, one, state.Peer{Name: "filed"})
	ok(t, s.ForgetPeer(ctx, "filed"))
	_, err = s.Peer(ctx, "filed")
	wantErr(t, err, state.ErrNotFound)
}

func peerSequences(t *testing.T, s Store) {
	ctx := t.Context()
	ok(t, s.SetPeerBundle(ctx, "retail", []byte("roots 5"), 5, epoch))
	wantErr(t, s.SetPeerBundle(ctx, "retail", []byte("roots 4"), 4, after(time.Hour)), state.ErrSequence)
	wantErr(t, s.SetPeerBundle(ctx, "retail", []byte("other roots"), 5, after(time.Hour)), state.ErrSequence)
	wantErr(t, s.SetPeerBundle(ctx, "retail", []byte("roots"), math.MaxUint64, after(time.Hour)), state.ErrSequence)
	one, err := s.Peer(ctx, "retail")
	ok(t, err)
	same(t, one.State, snapshot.PeerState{Roots: []byte("roots 5"), BundleSequence: 5, BundleTime: epoch})
	ok(t, s.SetPeerBundle(ctx, "retail", []byte("roots 5"), 5, after(time.Hour))) // confirmed fresh
	ok(t, s.SetPeerBundle(ctx, "retail", []byte("roots 6"), 6, after(2*time.Hour)))

	cat := snapshot.Catalogue{Sequence: 2, Time: epoch, Services: []snapshot.OfferedService{}}
	ok(t, s.SetPeerCatalogue(ctx, "retail", cat))
	ok(t, s.SetPeerCatalogue(ctx, "retail", cat)) // sent twice, since the answer was lost
	older, other, huge := cat, cat, cat
	older.Sequence, other.Services, huge.Sequence = 1, []snapshot.OfferedService{{Name: "x"}}, math.MaxUint64
	wantErr(t, s.SetPeerCatalogue(ctx, "retail", older), state.ErrSequence)
	wantErr(t, s.SetPeerCatalogue(ctx, "retail", other), state.ErrSequence)
	wantErr(t, s.SetPeerCatalogue(ctx, "retail", huge), state.ErrSequence)
	one, err = s.Peer(ctx, "retail")
	ok(t, err)
	same(t, one.State, snapshot.PeerState{Roots: []byte("roots 6"), BundleSequence: 6, BundleTime: after(2 * time.Hour), Catalogue: &cat})

	ok(t, s.SetPeerPushed(ctx, "retail", 9, "d9"))
	wantErr(t, s.SetPeerPushed(ctx, "retail", 8, "d8"), state.ErrSequence)

	// A peer that does not count may renew its roots under 0.
	ok(t, s.SetPeerBundle(ctx, "plain", []byte("roots a"), 0, epoch))
	ok(t, s.SetPeerBundle(ctx, "plain", []byte("roots b"), 0, epoch))
}

func revokedPeer(t *testing.T, s Store) {
	ctx := t.Context()
	ok(t, s.EstablishPeer(ctx, meshPeer("retail"), []byte("roots"), 7, epoch))
	ok(t, s.SetPeerCatalogue(ctx, "retail", snapshot.Catalogue{Sequence: 3}))
	ok(t, s.AddInvite(ctx, invite("a"))) // for retail
	ok(t, s.RevokePeer(ctx, "retail", after(time.Minute)))
	wantErr(t, s.SetPeerBundle(ctx, "retail", []byte("roots"), 8, after(time.Hour)), state.ErrRevoked)
	wantErr(t, s.SetPeerCatalogue(ctx, "retail", snapshot.Catalogue{Sequence: 4}), state.ErrRevoked)
	_, err := s.UseInvite(ctx, "a", hash("secret of a"), "198.51.100.4", after(2*time.Minute))
	wantErr(t, err, state.ErrNotFound)
	one, err := s.Peer(ctx, "retail")
	ok(t, err)
	same(t, one, state.Peer{
		Name: "retail", Object: meshPeer("retail"), Revoked: after(time.Minute),
		State: snapshot.PeerState{BundleSequence: 7},
	})
	// Consent anew, by a mesh that may have begun anew.
	ok(t, s.EstablishPeer(ctx, meshPeer("retail"), []byte("new roots"), 1, after(time.Hour)))
	one, err = s.Peer(ctx, "retail")
	ok(t, err)
	same(t, one, state.Peer{
		Name: "retail", Object: meshPeer("retail"),
		State: snapshot.PeerState{Roots: []byte("new roots"), BundleSequence: 1, BundleTime: after(time.Hour)},
	})
	ok(t, s.RevokePeer(ctx, "never met", epoch)) // holds against a file written later
	wantErr(t, s.SetPeerBundle(ctx, "never met", []byte("roots"), 1, epoch), state.ErrRevoked)
}

func sequences(t *testing.T, s Store) {
	for _, want := range []uint64{1, 2, 3} {
		got, err := s.NextSequence(t.Context(), "bundle")
		ok(t, err)
		same(t, got, want)
	}
	got, err := s.NextSequence(t.Context(), "catalogue")
	ok(t, err)
	same(t, got, uint64(1))
}
