package layers

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatModelNamesRealTests: what the threat model calls a proof is there, so that a test that is renamed or lost
// is missed.
func TestThreatModelNamesRealTests(t *testing.T) {
	text, err := os.ReadFile(root + "/docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	complaints, proofs := unproven(t, string(text))
	for _, c := range complaints {
		t.Error(c)
	}
	if proofs < 50 {
		t.Errorf("%d tests are named: too few for that page", proofs)
	}
}

// proof is a test as the page names it: package, test and perhaps a part of it.
var proof = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz)\\w+)(/[^`]+)?`")

// unproven are the rows of the page's tables that name no test, and the tests that are named anywhere and not there.
func unproven(t *testing.T, page string) (complaints []string, proofs int) {
	t.Helper()
	table := false
	for n, line := range strings.Split(page, "\n") {
		named := proof.FindAllStringSubmatch(line, -1)
		switch {
		case strings.HasPrefix(line, "| cannot | because | test |"):
			table = true
		case !strings.HasPrefix(line, "|"):
			table = false
		case table && len(named) == 0 && !strings.HasPrefix(line, "|-"):
			complaints = append(complaints, fmt.Sprintf("docs/threat-model.md:%d names no test", n+1))
		}
		for _, m := range named {
			proofs++
			if !present(t, m[1], m[2], m[3]) {
				complaints = append(complaints, fmt.Sprintf("docs/threat-model.md:%d: there is no %s", n+1, m[0]))
			}
		}
	}
	return complaints, proofs
}

// present looks for a test, and for its parts among the package's t.Run.
func present(t *testing.T, pkg, test, parts string) bool {
	t.Helper()
	dir := "internal/" + pkg
	if pkg == "e2e" || pkg == "install" {
		dir = "test/" + pkg
	}
	files, err := filepath.Glob(root + "/" + dir + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	if !strings.Contains(all.String(), "\nfunc "+test+"(") {
		return false
	}
	for _, part := range strings.Split(parts, "/")[1:] {
		if !strings.Contains(all.String(), `t.Run("`+part+`"`) {
			return false
		}
	}
	return true
}

// TestUnproven proves that the rule above can fail.
func TestUnproven(t *testing.T) {
	head := "| cannot | because | test |\n|---|---|---|\n"
	for row, want := range map[string]string{
		"| a | b | `layers.TestUnproven` |":              "",
		"| a | b | `layers.TestUnproven/a part` |":       "",
		"| a | b | `layers.TestGone` |":                  "docs/threat-model.md:3: there is no `layers.TestGone`",
		"| a | b | `gone.TestUnproven` |":                "docs/threat-model.md:3: there is no `gone.TestUnproven`",
		"| a | b | `layers.TestUnproven/another part` |": "docs/threat-model.md:3: there is no `layers.TestUnproven/another part`",
		"| a | b | c |\n\nSee `layers.TestGone`.":        "docs/threat-model.md:3 names no testdocs/threat-model.md:5: there is no `layers.TestGone`",
		"| a | b | stories |":                            "docs/threat-model.md:3 names no test",
	} {
		got, _ := unproven(t, head+row)
		if strings.Join(got, "") != want {
			t.Errorf("%s: %q, want %q", row, got, want)
		}
	}
	t.Run("a part", func(*testing.T) {})
}
