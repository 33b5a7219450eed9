package file

import (
	"os"
	"path/filepath"
	"testing"

	"isthmus.dev/isthmus/internal/schema"
)

// TestCopies: what was good when the last source ended stands while a file is broken or unreadable, and no longer than
// that.
func TestCopies(t *testing.T) {
	dir, copies := t.TempDir(), filepath.Join(t.TempDir(), "kept")
	path := filepath.Join(dir, "sub", "a.yaml")
	load := func(want string) {
		t.Helper()
		s := open(t, Config{Dir: dir, Copies: copies, Validate: schema.New().Validate})
		if got := describe(s.Load(t.Context())); got != want {
			t.Errorf("got %q, want %q", got, want)
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
