package times

import (
	"testing"
	"time"
)

func TestEarlierAndLater(t *testing.T) {
	a := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	b := a.Add(time.Nanosecond)
	for _, pair := range [][2]time.Time{{a, b}, {b, a}} {
		if got := Earlier(pair[0], pair[1]); got != a {
			t.Errorf("Earlier is %v", got)
		}
		if got := Later(pair[0], pair[1]); got != b {
			t.Errorf("Later is %v", got)
		}
	}
	if Earlier(a, a) != a || Later(time.Time{}, a) != a || !Earlier(time.Time{}, a).IsZero() {
		t.Error("equal moments, or one that is not set")
	}
}
