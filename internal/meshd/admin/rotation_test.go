package admin

import (
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/ca"
)

func TestCheckRotation(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	rot := ca.Rotation{Step: ca.Prepared, Since: noon}
	waits := []adminapi.CAWait{{What: "node", Name: "a", Why: "its agent is not connected"}, {What: "node", Name: "b"}}
	for _, c := range []struct {
		waits   []adminapi.CAWait
		failure string
		after   time.Duration
		want    string
	}{
		{nil, "", time.Hour, "ok: prepared since 2026-03-01T12:00:00Z"},
		{
			waits, "", time.Second,
			"ok: prepared since 2026-03-01T12:00:00Z, waits for node a: its agent is not connected, and for 1 more",
		},
		{
			waits[:1], "", time.Hour,
			"warning: prepared since 2026-03-01T12:00:00Z, waits for node a: its agent is not connected",
		},
		{nil, "disk full", 0, "failed: prepared since 2026-03-01T12:00:00Z: disk full"},
	} {
		got := checkRotation(rot, c.waits, c.failure, noon.Add(c.after))
		if text := got.State + ": " + got.Detail; text != c.want || (got.State == "ok") != (got.Remedy == "") {
			t.Errorf("got %q, remedy %q\nwant %q", text, got.Remedy, c.want)
		}
	}
}
