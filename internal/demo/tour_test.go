package demo

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"isthmus.dev/isthmus/internal/demo/lab"
)

func TestTheTourPromises(t *testing.T) {
	want := []string{
		"nothing reachable before peering", "peering in two commands", "export and import",
		"storefront crosses both gateways",
		"a WebSocket across the boundary", "catalogue refused", "tokens refused", "forbidden method and path",
		"plaintext refused", "direct address of the other mesh",
		"impostor with the right names", "right peer, wrong SNI", "certificates renewed under load",
		"both control planes killed",
		"failover under load", "suspended", "resumed",
	}
	var got []string
	for _, s := range promises {
		got = append(got, s.what)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestOneLineAStep(t *testing.T) {
	seen := func(text string, err error) func(context.Context, *world) (string, error) {
		return func(context.Context, *world) (string, error) { return text, err }
	}
	prefix := "isthmus-t-tour"
	l, _, err := lab.Open(lab.Config{Prefix: prefix, Dir: filepath.Join(t.TempDir(), "lab")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := &world{lab: l}
	var out bytes.Buffer
	err = w.tour(t.Context(), printer{out: &out, start: time.Now()}, []step{
		{what: "a", expected: "1", needed: true, try: seen("one\n and a half", nil)},
		{what: "b", expected: "2", try: seen("", errors.New("three"))},
		{what: "c", expected: "3", needed: true, try: seen("", errors.New("nothing"))},
		{what: "d", expected: "4", try: seen("never", nil)},
	})
	if err == nil || err.Error() != "the tour: 3 of 4 steps did not hold" {
		t.Errorf("got %v", err)
	}
	want := `
       took  what                              expected                                seen
 1 √  0.0 s  a                                 1                                       one and a half
 2 ×  0.0 s  b                                 2                                       three
 3 ×  0.0 s  c                                 3                                       nothing
 4 –  0.0 s  d                                 4                                       not tried: it needs step 3

1 of 4 held in 0.0 s.

`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
