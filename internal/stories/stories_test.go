package stories

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

var update = flag.Bool("update", false, "rewrite what comes out of each story")

func TestStories(t *testing.T) {
	paths := storyFiles(t)
	for _, path := range paths {
		t.Run(storyName(path), func(t *testing.T) {
			t.Parallel()
			a, s := readStory(t, path)
			got, err := s.Outcome()
			if err != nil {
				t.Fatal(err)
			}
			if *update {
				rewrite(t, path, a, got)
				return
			}
			want := map[string]string{}
			for _, f := range a.Files {
				if !isInput(f.Name) {
					want[f.Name] = string(f.Data)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the outcome changed (-want +got); read it, then run with -update:\n%s", diff)
			}
		})
	}
}

func storyFiles(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no stories found: %v", err)
	}
	return paths
}

// readStory reads a story and its parts.
func readStory(t *testing.T, path string) (*txtar.Archive, *Story) {
	t.Helper()
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Read("testdata", a)
	if err != nil {
		t.Fatal(err)
	}
	return a, s
}

func storyName(path string) string { return path[len("testdata/") : len(path)-len(".txtar")] }

func isInput(section string) bool {
	return strings.HasPrefix(section, "in") || section == "world.yaml" || section == "options"
}

func rewrite(t *testing.T, path string, a *txtar.Archive, got map[string]string) {
	t.Helper()
	out := &txtar.Archive{Comment: a.Comment}
	for _, f := range a.Files {
		if isInput(f.Name) {
			out.Files = append(out.Files, f)
		}
	}
	for _, name := range sorted(got, func(a, b string) int { return compareSections(a, b) }) {
		out.Files = append(out.Files, txtar.File{Name: name, Data: []byte(got[name])})
	}
	if err := os.WriteFile(path, txtar.Format(out), 0o644); err != nil {
		t.Fatal(err)
	}
}

// compareSections puts findings and model before the xDS sections.
func compareSections(a, b string) int {
	order := map[string]int{"findings": -2, "model": -1}
	if order[a] != order[b] {
		return order[a] - order[b]
	}
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
