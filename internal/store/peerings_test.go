package store

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// What neither files nor peers changed is the very same in the next snapshot, peers that were made by token too.
func TestPeeringsKeepTheirPointers(t *testing.T) {
	l := newLab(t, file(t))
	made := meshPeer("shop", "shop.example")
	must(t, l.kept.EstablishPeer(t.Context(), made, peerrules.Learned(made, nil), 1, noon))
	must(t, l.SetConfig(t.Context(), services("a", "b")))
	must(t, l.Reload(t.Context()))
	first := l.Snapshot().Config
	o := first.Objects.Get(snapshot.Key{Kind: "MeshPeer", Name: "shop"})
	if o == nil || o.Origin.Source != snapshot.SourceToken || !o.Origin.FirstSeen.Equal(noon) {
		t.Fatalf("the peer by token is %+v", o)
	}

	must(t, l.Reload(t.Context())) // reads the peer again
	if l.Snapshot().Config != first {
		t.Error("nothing changed, and there is another configuration")
	}

	must(t, l.SetConfig(t.Context(), services("a", "b", "c")))
	second := l.Snapshot().Config
	if second.Objects.Namespace("") != first.Objects.Namespace("") {
		t.Error("another namespace changed, and the peer by token is another one")
	}
	same(t, "what changed", changes(second.Objects, first.Objects), []string{"Service default/c"})

	must(t, l.kept.EstablishPeer(t.Context(), meshPeer("bank", "bank.example"), []byte("roots"), 1, noon))
	must(t, l.Reload(t.Context()))
	third := l.Snapshot().Config
	same(t, "a peering more", changes(third.Objects, second.Objects), []string{"MeshPeer bank"})

	must(t, l.kept.RevokePeer(t.Context(), "bank", noon))
	must(t, l.Reload(t.Context()))
	same(t, "a peering less", changes(l.Snapshot().Config.Objects, third.Objects), []string{"MeshPeer bank"})
	same(t, "peers", len(snapshot.Of[*v1alpha1.MeshPeer](l.Snapshot().Config)), 1)

	filed := &v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: "filed"}}
	must(t, l.SetConfig(t.Context(), services("a").With(snapshot.PutAll(filed))))
	fourth := l.Snapshot().Config
	must(t, l.kept.RevokePeer(t.Context(), "shop", noon))
	must(t, l.Reload(t.Context()))
	same(t, "the last peering ends", changes(l.Snapshot().Config.Objects, fourth.Objects), []string{"MeshPeer shop"})
}

func changes(now, before *snapshot.Objects) []string {
	var out []string
	for was, is := range now.Diff(before) {
		if is == nil {
			is = was
		}
		out = append(out, is.Key.String())
	}
	slices.Sort(out)
	return out
}
