package accesslog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

func entriesOf(t *testing.T, paths ...string) (out []Entry) {
	t.Helper()
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, line := range bytes.Split(bytes.TrimSpace(text), []byte("\n")) {
			if len(line) == 0 {
				continue
			}
			var e Entry
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			out = append(out, e)
		}
	}
	return out
}

// One peer's refused requests, with paths as long as a request may have, leave the record of what it did before.
func TestAFloodOfRefusalsPushesNothingOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "access.log")
		s := New(Config{Log: slog.New(slog.DiscardHandler), Path: path, MaxBytes: 1 << 20})
		s.take(Entry{Log: "ingress", Peer: "retail", Verdict: "allowed", Path: "/secret", http: true})
		for n := range 30_000 {
			s.take(Entry{
				Log: "ingress", Peer: "retail", Verdict: "denied", Caller: "spiffe://retail.example/ns/default/sa/x",
				Reason: "no policy allows it",
				Path:   fmt.Sprintf("/%d/%s", n, strings.Repeat("a", 55_000)), http: true,
			})
			if n%1000 == 0 {
				waittest.Advance(time.Second)
			}
		}
		s.take(Entry{Log: "ingress", Verdict: "handshake", Remote: "192.0.2.9"})
		waittest.Advance(2 * foldFor)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		ours := filepath.Join(filepath.Dir(path), "access.retail.log")
		got := entriesOf(t, ours+".1", ours)
		var told uint64
		secret := false
		for _, e := range got {
			secret = secret || e.Path == "/secret"
			if len(e.Path) > 1100 {
				t.Fatalf("a path of %d bytes is kept", len(e.Path))
			}
			if e.Verdict == "denied" {
				told += max(e.Repeated, 1)
			}
		}
		if !secret || told != 30_000 || len(got) > 1500 {
			t.Errorf("%d lines stand for %d refusals; the call before them is there: %v", len(got), told, secret)
		}
		if strangers := entriesOf(t, path); len(strangers) != 1 {
			t.Errorf("%d entries of strangers", len(strangers))
		}
	})
}

// Very many calls that are allowed push out the peer's own record, and no other's.
func TestEachSourceHasFilesOfItsOwn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	s := New(Config{Log: slog.New(slog.DiscardHandler), Path: path, MaxBytes: 64 << 10})
	workload := func(id string) map[string]string { return map[string]string{tagWorkload: id} }
	s.take(Entry{Log: "ingress", Peer: "cards", Verdict: "allowed", http: true})
	s.take(Entry{Log: "inbound", Verdict: "denied", Tags: workload("default/web"), http: true})
	for range 3000 {
		s.take(Entry{Log: "ingress", Peer: "retail", Verdict: "allowed", Path: "/", http: true})
	}
	for n := range 3000 {
		s.take(Entry{
			Log: "outbound", Verdict: "denied", Tags: workload("default/loud"), Destination: fmt.Sprint(n), http: true,
		})
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	for file, want := range map[string]int{"access.cards.log": 1, "access.default.web.log": 1} {
		if got := entriesOf(t, filepath.Join(dir, file)); len(got) != want {
			t.Errorf("%s has %d entries, want %d", file, len(got), want)
		}
	}
	for _, loud := range []string{"access.retail.log", "access.default.loud.log"} {
		if st, err := os.Stat(filepath.Join(dir, loud)); err != nil || st.Size() > 64<<10 {
			t.Errorf("%s: %v, %v", loud, st, err)
		}
	}
}
