package statetest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSweep(t *testing.T) {
	base := t.TempDir()
	for _, name := range []string{"isthmus-tests-left", "isthmus-tests-used", "else"} {
		if err := os.MkdirAll(filepath.Join(base, name, "state.db"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	unlock, err := lock(filepath.Join(base, "isthmus-tests-used"), unix.LOCK_SH)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	holds := func(what string, want ...string) {
		t.Helper()
		entries, err := os.ReadDir(base)
		if err != nil || len(entries) != len(want) {
			t.Fatalf("%s: %v, %v, want %v", what, entries, err, want)
		}
		for i, e := range entries {
			if e.Name() != want[i] {
				t.Errorf("%s: %v, want %v", what, entries, want)
			}
		}
	}
	sweep(base, time.Now())
	holds("too young", "else", "isthmus-tests-left", "isthmus-tests-used")
	sweep(base, time.Now().Add(2*time.Minute))
	holds("after two minutes", "else", "isthmus-tests-used")
}
