package rates

import (
	"testing"
	"time"
)

var noon = time.Unix(1_700_000_000, 0)

func TestAllow(t *testing.T) {
	r := New[string](10)
	for i, want := range []bool{true, true, false} {
		if r.Allow("a", 1, 2, noon) != want {
			t.Errorf("event %d: allowed %v", i+1, !want)
		}
	}
	if !r.Allow("b", 1, 2, noon) {
		t.Error("another key was refused")
	}
	if !r.Allow("a", 1, 2, noon.Add(time.Second)) || r.Allow("a", 1, 2, noon.Add(time.Second)) {
		t.Error("after a second not one was allowed")
	}
	if r.Clear(); !r.Allow("a", 1, 2, noon.Add(time.Second)) {
		t.Error("not forgotten")
	}
}

// However many callers there were, what is remembered of them has a bound, and those who come later are served again.
func TestRatesAreForgotten(t *testing.T) {
	const most = 10_000
	r := New[int](most)
	for i := range most {
		if !r.Allow(i, 1, 1, noon) {
			t.Fatal("refused early")
		}
	}
	if r.Allow(most, 1, 1, noon) || len(r.byKey) > most {
		t.Errorf("%d are remembered", len(r.byKey))
	}
	if !r.Allow(most, 1, 1, noon.Add(rest+time.Second)) {
		t.Error("refused for ever")
	}
}
