package peerrules

import (
	"fmt"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

// What is remembered of roots is nobody's to change, and bounded.
func TestRootsAreRemembered(t *testing.T) {
	text := newRoot(t, time.Now().Add(time.Hour), true)
	first, err := ParseRoots(text)
	if err != nil || len(first) != 1 {
		t.Fatal(first, err)
	}
	root := first[0]
	first[0] = nil
	for n := range maxParsed + 1 {
		if _, err := ParseRoots(fmt.Appendf(nil, "no PEM %d", n)); err == nil {
			t.Fatal("parsed what is no PEM")
		}
		if again, err := ParseRoots(text); err != nil || len(again) != 1 || !again[0].Equal(root) {
			t.Fatalf("after %d others: %v, %v", n, again, err)
		}
	}
	if n := len(parsed.roots); n > maxParsed {
		t.Errorf("%d texts are remembered", n)
	}
}

// BenchmarkAll judges 20 peers, as each change of the mesh does.
func BenchmarkAll(b *testing.B) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	snap := &snapshot.Snapshot{Time: now, Peers: map[string]snapshot.PeerState{}}
	var change snapshot.Change
	for n := range 20 {
		p := meshPeer(fmt.Sprintf("p%d", n), fmt.Sprintf("p%d.example", n))
		p.Spec.Bundle.Inline = string(newRoot(b, now.Add(time.Hour), true))
		snap.Peers[p.Name] = snapshot.PeerState{Roots: grown(p, []byte(p.Spec.Bundle.Inline)), BundleTime: now}
		change.Put(snapshot.NewObject(p, snapshot.Origin{FirstSeen: now}))
	}
	snap.Config = (&snapshot.Config{}).With(change)
	for b.Loop() {
		if v := All(snap, "own.example"); !v["p7"].Live {
			b.Fatal(v["p7"].Message)
		}
	}
}
