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

// TestRegistry has each code that the module uses, once and in order, and no other, and says all of it.
func TestRegistry(t *testing.T) {
	used := usedCodes(t)
	var listed []finding.Code
	for _, row := range finding.Registry {
		listed = append(listed, row.Code)
		if used[row.Code] == "" {
			t.Errorf("%s is listed and used nowhere", row.Code)
		}
		if row.Title == "" || row.Remedy == "" {
			t.Errorf("%s lacks a title or a remedy", row.Code)
		}
		if row.Page == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(root, "docs", "kinds", row.Page+".md")); err != nil {
			t.Errorf("%s has no page: %v", row.Code, err)
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

// TestFindingsAreMadeByNew: no place writes a severity of its own, nor code and severity apart.
func TestFindingsAreMadeByNew(t *testing.T) {
	byHand := regexp.MustCompile(`finding\.Finding\{+\s*\w+:|\bf\.Code = |\.Severity = `)
	eachFile(t, func(path, text string) {
		if filepath.Dir(path) != "internal/finding" {
			for _, m := range byHand.FindAllString(text, -1) {
				t.Errorf("%s: %s", path, m)
			}
		}
	})
}

// usedCodes are the codes that stand in the module's Go files, each with one of them.
func usedCodes(t *testing.T) map[finding.Code]string {
	t.Helper()
	literal := regexp.MustCompile(`"(ISM[0-9]{4}|ISM-[A-Z]{3}[0-9]{2})"`)
	used := map[finding.Code]string{}
	eachFile(t, func(path, text string) {
		if path == table {
			return
		}
		for _, m := range literal.FindAllStringSubmatch(text, -1) {
			used[finding.Code(m[1])] = path
		}
	})
	if len(used) < 50 {
		t.Fatalf("found %d codes: too few to be this module's", len(used))
	}
	return used
}

// eachFile shows the module's Go files, tests aside, with their paths inside the module.
func eachFile(t *testing.T, show func(path, text string)) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(root, "internal"), func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		show(filepath.ToSlash(rel), string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestCodesAreDocumented: docs/kinds/README.md ends with the registry.
func TestCodesAreDocumented(t *testing.T) {
	const head = "| Code | Severity | What it catches | What to do | Istio, Kiali |\n|---|---|---|---|---|\n"
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
	for _, row := range finding.Registry {
		title := row.Title
		if row.Page != "" {
			title = fmt.Sprintf("[%s](%s.md)", title, row.Page)
		}
		want += fmt.Sprintf("| %s | %s | %s | %s | %s |\n", row.Code, row.Severity, title,
			strings.ReplaceAll(row.Remedy, "<", "\\<"), strings.Join(row.Aliases, " "))
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
