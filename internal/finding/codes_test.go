package finding_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/finding"
)

const (
	root  = "../.."
	table = "internal/finding/codes.go"
)

var rewrite = flag.Bool("update", false, "rewrite the table of codes in docs/kinds/README.md")

// TestCodesAreListed: the table has each code that the module uses, once and in order, and no other.
func TestCodesAreListed(t *testing.T) {
	used := usedCodes(t)
	var listed []string
	for _, c := range finding.Codes {
		listed = append(listed, c.Code)
		if used[c.Code] == "" {
			t.Errorf("%s is listed and used nowhere", c.Code)
		}
		if c.Catches == "" {
			t.Errorf("%s lacks what it catches", c.Code)
		}
	}
	if sorted := slices.Compact(slices.Sorted(slices.Values(listed))); !slices.Equal(listed, sorted) {
		t.Errorf("codes are not in order, or one is listed twice: %v", listed)
	}
	for code, path := range used {
		if !slices.Contains(listed, code) {
			t.Errorf("%s, which %s uses, is missing in %s", code, path, table)
		}
	}
}

// usedCodes are the codes that stand in the module's Go files, each with one of them.
func usedCodes(t *testing.T) map[string]string {
	t.Helper()
	literal := regexp.MustCompile(`"(ISM[0-9]{4}|ISM-[A-Z]{3}[0-9]{2})"`)
	used := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, "internal"), func(path string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, path)
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
			filepath.ToSlash(rel) == table {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range literal.FindAllStringSubmatch(string(text), -1) {
			used[m[1]] = rel
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(used) < 50 {
		t.Fatalf("found %d codes: too few to be this module's", len(used))
	}
	return used
}

// TestCodesAreDocumented: docs/kinds/README.md ends with the table of all codes.
func TestCodesAreDocumented(t *testing.T) {
	const head = "| Code | Severity | Catches |\n|---|---|---|\n"
	path := filepath.Join(root, "docs", "kinds", "README.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(page), head)
	if !ok {
		t.Fatalf("%s lacks the table of codes", path)
	}
	want := before + head
	for _, c := range finding.Codes {
		want += fmt.Sprintf("| %s | %s | %s |\n", c.Code, c.Severity, c.Catches)
	}
	if want == string(page) {
		return
	}
	if !*rewrite {
		t.Errorf("%s: the table of codes is stale; run: go test ./internal/finding -update", path)
	} else if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
