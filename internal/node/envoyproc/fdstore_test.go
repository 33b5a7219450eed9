package envoyproc

import (
	"io"
	"os"
	"strings"
	"testing"
)

// TestFDStoreReplaces: what lies in the store is what was put there last, and the files in it are open.
func TestFDStoreReplaces(t *testing.T) {
	s, err := newFDStore()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.replace([]HeldSocket{{"old", []*os.File{fileWith(t, "old")}}}); err != nil {
		t.Fatal(err)
	}
	want := []HeldSocket{
		{"web dns", []*os.File{fileWith(t, "one"), fileWith(t, "two")}},
		{"web 2.0", []*os.File{fileWith(t, "three")}},
	}
	if err := s.replace(want); err != nil {
		t.Fatal(err)
	}
	for _, h := range want {
		Release(h.Files) // the store has its own
	}
	got, err := s.take()
	if err != nil {
		t.Fatal(err)
	}
	var text []string
	for _, h := range got {
		line := h.Name + ":"
		for _, f := range h.Files {
			f.Seek(0, io.SeekStart)
			b, err := io.ReadAll(f)
			if err != nil {
				t.Error(err)
			}
			line += " " + string(b)
		}
		text = append(text, line)
		Release(h.Files)
	}
	if strings.Join(text, "; ") != "web dns: one two; web 2.0: three" {
		t.Errorf("the store holds %q", text)
	}
	if again, err := s.take(); err != nil || len(again) != 0 {
		t.Errorf("after it was emptied it holds %v, %v", again, err)
	}
}

// TestFDStoreTakesTheLater: an agent that died within replace leaves two entries of one name.
func TestFDStoreTakesTheLater(t *testing.T) {
	s, err := newFDStore()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	first, second := fileWith(t, "first"), fileWith(t, "second")
	for i, f := range []*os.File{first, second} {
		if err := s.put([]byte{0, 0, 0, 0, 0, 0, 0, byte(i)}, HeldSocket{"web dns", []*os.File{f}}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.take()
	if err != nil || len(got) != 1 || len(got[0].Files) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	defer Release(got[0].Files)
	a, _ := second.Stat()
	b, err := got[0].Files[0].Stat()
	if err != nil || !os.SameFile(a, b) {
		t.Errorf("the first of the two was taken (%v)", err)
	}
}

func fileWith(t *testing.T, text string) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f
}
