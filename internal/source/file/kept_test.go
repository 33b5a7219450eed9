package file

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/waittest"
)

// TestCopies: what was good when the last source ended stands while a file is broken or unreadable, and no longer than
// that.
func TestCopies(t *testing.T) {
	dir, copies := t.TempDir(), filepath.Join(t.TempDir(), "kept")
	path := filepath.Join(dir, "sub", "a.yaml")
	ended := false // a source ends before it has removed what is replaced
	load := func(want string) {
		t.Helper()
		s := open(t, Config{Dir: dir, Copies: copies, Validate: schema.New().Validate})
		if got := describe(s.Load(t.Context())); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if !ended {
			s.folder.copies.sync(t.Context())
		}
	}
	broken := "apiVersion: v1\nkind: Namespace\nmetadata: {name: one, nonsense: 1}\n"

	write(t, filepath.Join(dir, "b.yaml"), namespaceYAML("two"))
	write(t, path, broken)
	load("two ISM-SCH16") // never good
	write(t, path, namespaceYAML("one"))
	load("one two")
	write(t, path, broken)
	load("one two ISM-SCH16 ISM-SRC01")
	load("one two ISM-SCH16 ISM-SRC01") // and once more
	write(t, path, namespaceYAML("three"))
	load("three two")

	kept, err := filepath.Glob(filepath.Join(copies, "*"))
	if err != nil || len(kept) != 2 {
		t.Fatalf("%d copies of two files: %v", len(kept), err)
	}
	for _, k := range append(kept, copies) {
		if st, err := os.Stat(k); err != nil || st.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: mode %v, %v", k, st.Mode(), err)
		}
	}
	t.Run("a copy that was changed does not count", func(t *testing.T) {
		write(t, path, broken)
		for _, k := range kept {
			write(t, k, namespaceYAML("forged"))
		}
		load("two ISM-SCH16")
	})
	t.Run("of several copies the newest that is whole counts", func(t *testing.T) {
		ended = true
		for _, name := range []string{"four", "five", "six"} {
			write(t, path, namespaceYAML(name))
			load(name + " two")
		}
		all, err := filepath.Glob(filepath.Join(copies, openCopies(dir, copies, nil).of(path)+"-*"))
		if err != nil || len(all) != 3 {
			t.Fatal(all, err)
		}
		for _, k := range all {
			if text, err := os.ReadFile(k); err != nil {
				t.Fatal(err)
			} else if string(text) == namespaceYAML("six") {
				write(t, k, string(text[:len(text)-1])) // the power was lost
			}
		}
		write(t, path, strings.Replace(broken, "one", "five", 1))
		load("five two ISM-SCH16 ISM-SRC01")
		ended = false
		load("five two ISM-SCH16 ISM-SRC01")
		if all, err = filepath.Glob(filepath.Join(copies, "*")); err != nil || len(all) != 2 {
			t.Errorf("left are %v, %v", all, err)
		}
	})
	t.Run("a file that is gone is forgotten", func(t *testing.T) {
		write(t, path, namespaceYAML("one"))
		load("one two")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		load("two")
		write(t, path, broken)
		load("two ISM-SCH16")
	})
	t.Run("a folder that cannot be written is no fault of the configuration", func(t *testing.T) {
		copies = filepath.Join(dir, "b.yaml", "kept")
		load("two ISM-SCH16")
	})
}

// Who watches removes what is replaced once the newest copy outlasts a loss of power, and no change waits for that.
func TestReplacedCopiesGo(t *testing.T) {
	dir, copies := t.TempDir(), filepath.Join(t.TempDir(), "kept")
	write(t, filepath.Join(dir, "a.yaml"), namespaceYAML("one"))
	for _, name := range []string{"one", "two"} {
		write(t, filepath.Join(dir, "a.yaml"), namespaceYAML(name))
		open(t, Config{Dir: dir, Copies: copies, Validate: schema.New().Validate}).Load(t.Context())
	}
	all := func() []string {
		found, err := filepath.Glob(filepath.Join(copies, "*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if n := len(all()); n != 2 {
		t.Fatalf("%d copies while nothing is known to outlast a loss of power", n)
	}
	s := open(t, Config{Dir: dir, Copies: copies, Validate: schema.New().Validate})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	waittest.Until(t, "one copy is left", func() bool { return len(all()) == 1 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(all()[0]); err != nil || string(text) != namespaceYAML("two") {
		t.Errorf("%q, %v", text, err)
	}
}
