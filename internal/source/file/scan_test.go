package file

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// A link to a very large tree costs a bounded walk, and keeps nothing from being read that is really in the folder.
func TestLinkToAVeryLargeTree(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	write := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("kind: Mesh"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n := range maxFolders + 500 {
		if err := os.MkdirAll(filepath.Join(elsewhere, strconv.Itoa(n)), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(elsewhere, filepath.Join(dir, "a-link")); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "z", "deny.yaml"))
	l := scan(dir)
	if _, ok := l.files[filepath.Join(dir, "z", "deny.yaml")]; !ok {
		t.Error("a file of the folder itself is not seen")
	}
	if len(l.dirs) != maxFolders {
		t.Errorf("%d folders were walked, want %d", len(l.dirs), maxFolders)
	}
	if l.unknown(filepath.Join(dir, "z", "deny.yaml")) || len(l.errs) != 1 ||
		l.errs[filepath.Join(dir, "a-link")] == nil {
		t.Errorf("could not be looked at: %v", l.errs)
	}
}
