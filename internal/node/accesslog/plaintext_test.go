package accesslog

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/wellknown"
)

// Who calls in plaintext is named once, for an hour after its last call, and is no refusal.
func TestPlaintextCallers(t *testing.T) {
	var said strings.Builder
	changes, now := 0, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := New(Config{
		Log: slog.New(slog.NewTextHandler(&said, nil)), Path: t.TempDir() + "/access.log",
		Questions: t.TempDir() + "/dns.log", MaxBytes: 1 << 20, Changed: func() { changes++ },
	})
	s.now = func() time.Time { return now }
	call := func(workload, from string) {
		s.take(Entry{
			Log: wellknown.LogPlaintext, Verdict: verdictAllowed, Remote: from,
			Tags: map[string]string{tagWorkload: workload},
		})
	}
	expect := func(workload string, want ...string) {
		t.Helper()
		if got := s.Plaintext(workload); !slices.Equal(got, want) {
			t.Errorf("callers of %s: %v, want %v", workload, got, want)
		}
	}
	call("a/b", "10.0.0.2")
	call("a/b", "10.0.0.1")
	call("a/b", "10.0.0.1")
	call("a/c", "10.0.0.1")
	expect("a/b", "10.0.0.1", "10.0.0.2")
	expect("a/c", "10.0.0.1")
	expect("a/d")
	if changes != 3 || strings.Count(said.String(), "called in plaintext") != 3 {
		t.Errorf("%d changes, and the log says\n%s", changes, said.String())
	}
	if len(s.tally.refusals()) > 0 {
		t.Errorf("refusals: %v", s.tally.refusals())
	}
	now = now.Add(40 * time.Minute)
	call("a/b", "10.0.0.1")
	now = now.Add(40 * time.Minute)
	if !s.ForgetPlaintext(now) || s.ForgetPlaintext(now) {
		t.Error("nobody was forgotten, or somebody twice")
	}
	expect("a/b", "10.0.0.1")
	expect("a/c")
	for i := range 1000 {
		call("a/b", fmt.Sprint("10.1.0.", i))
	}
	if n := len(s.Plaintext("a/b")); n != 256 {
		t.Errorf("%d callers are kept", n)
	}
}
