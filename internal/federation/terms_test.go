package federation

import (
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

// What is said of how long a peering holds lasts, is in force at once, and is changed where it was said.
func TestTermsOfAPeering(t *testing.T) {
	cards, retail, _ := pair(t)
	join(t, cards, retail)
	end := cards.now().Add(time.Hour).UTC().Truncate(time.Second)
	age, expires, err := cards.SetTerms(t.Context(), "retail", Terms{MaxBundleAge: time.Minute, ExpiresAt: end})
	if err != nil || age != time.Minute || !expires.Equal(end) {
		t.Fatal(age, expires, err)
	}
	p := cards.meshPeer("retail")
	if p.Spec.MaxBundleAge.Duration != time.Minute || !p.Spec.ExpiresAt.Time.Equal(end) {
		t.Errorf("%+v", p.Spec)
	}
	if age, expires, err = cards.SetTerms(t.Context(), "retail", Terms{Never: true}); err != nil ||
		age != time.Minute || !expires.IsZero() {
		t.Error(age, expires, err)
	}
	for want, terms := range map[string]Terms{
		"between 1s and":      {MaxBundleAge: time.Millisecond},
		"old, not 87600h0m0s": {MaxBundleAge: 87600 * time.Hour},
		"is over: to end":     {ExpiresAt: cards.now().Add(-time.Second)},
		"not both":            {ExpiresAt: end, Never: true},
	} {
		if _, _, err := cards.SetTerms(t.Context(), "retail", terms); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", terms, err)
		}
	}
	if _, _, err := cards.SetTerms(t.Context(), "nobody", Terms{Never: true}); err == nil ||
		!strings.Contains(err.Error(), `no peer "nobody"`) {
		t.Error(err)
	}
	if p := cards.meshPeer("retail"); p.Spec.MaxBundleAge.Duration != time.Minute || p.Spec.ExpiresAt != nil {
		t.Errorf("what was refused is in force: %+v", p.Spec)
	}

	filed := p.DeepCopy()
	filed.Name = "filed"
	cards.edit(func(c *snapshot.Config) {
		c.Objects = snapshot.ObjectsOf(filed).WithOrigins(map[snapshot.Key]snapshot.Origin{{
			Kind: "MeshPeer",
			Name: "filed",
		}: {Source: snapshot.SourceFile, File: "peers.yaml", Line: 7}})
	})
	if _, _, err := cards.SetTerms(t.Context(), "filed", Terms{Never: true}); err == nil ||
		!strings.HasSuffix(err.Error(), "at peers.yaml:7") {
		t.Error(err)
	}
	if err := cards.Revoke(t.Context(), "retail"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := cards.SetTerms(t.Context(), "retail", Terms{Never: true}); err == nil {
		t.Error("the terms of a revoked peer were changed")
	}
}
