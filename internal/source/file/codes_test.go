package file

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/istioyaml"
)

var rewrite = flag.Bool("update", false, "rewrite the table of codes in docs/kinds/README.md")

// TestCodesAreDocumented: docs/kinds/README.md ends with the table of all codes of reading.
func TestCodesAreDocumented(t *testing.T) {
	const head = "| Code | Severity | Catches |\n|---|---|---|\n"
	path := filepath.Join("..", "..", "..", "docs", "kinds", "README.md")
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(page), head)
	if !ok {
		t.Fatalf("%s lacks the table of codes", path)
	}
	want := before + head
	for _, c := range slices.Concat(istioyaml.Codes, Codes) {
		want += fmt.Sprintf("| %s | %s | %s |\n", c.Code, c.Severity, c.Catches)
	}
	if want == string(page) {
		return
	}
	if !*rewrite {
		t.Errorf("%s: the table of codes is stale; run: go test ./internal/source/file -update", path)
	} else if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
