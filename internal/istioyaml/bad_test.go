package istioyaml_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/schema"
)

// TestBad holds each file of testdata/bad to its "# want: CODE LINE FIELD" lines, which name every finding.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	validate := schema.New().Validate
	seen := map[finding.Code]bool{}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".yaml"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			want := wanted(string(text))
			f := istioyaml.Decode(path, text, validate, nil)
			var got []string
			for _, fd := range f.Findings {
				got = append(got, strings.TrimSpace(fmt.Sprintf("%s %d %s", fd.Code, fd.Line, fd.Field)))
				seen[fd.Code] = true
				if fd.Message == "" || fd.Remedy == "" || fd.File != path {
					t.Errorf("finding lacks something: %+v", fd)
				}
			}
			slices.Sort(want)
			slices.Sort(got)
			if len(want) == 0 || !slices.Equal(got, want) {
				t.Errorf("found\n  %s\nwant\n  %s\n%v", strings.Join(got, "\n  "), strings.Join(want, "\n  "),
					f.Findings)
			}
		})
	}
	// TestFaultAtOneObject shows ISM0202
	ours := []finding.Code{"ISM0203", "ISM0204", finding.Reserved}
	for _, c := range finding.Registry {
		if (strings.HasPrefix(string(c.Code), "ISM-SCH") || slices.Contains(ours, c.Code)) && !seen[c.Code] {
			t.Errorf("no file in testdata/bad shows %s: %s", c.Code, c.Title)
		}
	}
}

func wanted(text string) []string {
	var want []string
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		if w, ok := strings.CutPrefix(s.Text(), "# want: "); ok {
			want = append(want, w)
		}
	}
	return want
}
