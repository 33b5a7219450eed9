package layers

import (
	"fmt"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// columns is how long a line of Go may be, a tab counting four.
const columns = 120

// refused are texts that a file must not have, each with what to write instead. Comments and names are held to them
// alike.
var refused = []struct {
	pattern *regexp.Regexp
	instead string
	tests   bool // only tests must not have it
}{
	{regexp.MustCompile(`(?m)^func init\(\)`), "a row in a table that is passed on", false},
	{regexp.MustCompile(`\b(TODO|FIXME|XXX)\b[^(]`), "TODO(topic): what is to be done", false},
	{regexp.MustCompile(`(?i)\bdeeds?\b`), "action, change or call", false},
	{regexp.MustCompile(`\b(whence|thereof|hitherto|wherein|hangs? from)\b`), "plain words", false},
	{regexp.MustCompile(`\btime\.Sleep\(`), "waittest.Until or Within; Quiet, Pace or Advance where nothing can be waited for", true},
}

// excusedText are the files that may have one of them, with the reason.
var excusedText = map[string]string{
	"internal/rpc/rpc.go":            "gRPC knows codecs only by registration",
	"internal/layers/style_test.go":  "names what it refuses",
	"internal/layers/layers_test.go": "names what it refuses",
}

// vague are words for packages and files that say nothing of what is in them.
var vague = []string{"util", "utils", "common", "helper", "helpers", "manager", "misc"}

func TestStyle(t *testing.T) {
	read := 0
	for path, text := range goFiles(t) {
		read++
		for _, complaint := range styleOf(path, text) {
			t.Error(complaint)
		}
	}
	if read < 400 {
		t.Fatalf("read %d files: too few to be this module", read)
	}
}

// TestStyleOf proves that the rules can fail.
func TestStyleOf(t *testing.T) {
	long := strings.Repeat("x", 60)
	for name, tc := range map[string]struct {
		path, text string
		want       []string
	}{
		"fine":            {"a/b.go", "package b\n\n// B says so.\nvar b = 1\n", nil},
		"long code":       {"a/b.go", "package b\n\nvar " + long + " = " + long + "\n", []string{"a/b.go:3: 127 columns; at most 120"}},
		"long comment":    {"a/b.go", "package b\n\n// " + long + " " + long + "\n", []string{"a/b.go:3: 124 columns; at most 120"}},
		"tabs count":      {"a/b.go", "package b\n\n\t\t\t// " + long + " " + long[:48] + "\n", []string{"a/b.go:3: 124 columns; at most 120"}},
		"a long text":     {"a/b.go", "package b\n\nvar b = \"" + long + long + "\"\n", nil},
		"init":            {"a/b.go", "package b\n\nfunc init() {}\n", []string{`a/b.go: has "func init()"; write a row in a table that is passed on`}},
		"TODO":            {"a/b.go", "package b\n\n// TODO: this\n", []string{`a/b.go: has "TODO:"; write TODO(topic): what is to be done`}},
		"TODO with topic": {"a/b.go", "package b\n\n// TODO(egress idle): this\n", nil},
		"sleep":           {"a/b.go", "package b\n\nfunc b() { time.Sleep(1) }\n", nil},
		"sleep in a test": {"a/b_test.go", "package b\n\nfunc b() { time.Sleep(1) }\n", []string{`a/b_test.go: has "time.Sleep("; write waittest.Until or Within; Quiet, Pace or Advance where nothing can be waited for`}},
		"file name":       {"a/util.go", "package b\n", []string{"a/util.go: \"util\" says nothing of what is in it"}},
		"folder name":     {"a/common/b.go", "package common\n", []string{"a/common/b.go: \"common\" says nothing of what is in it"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := styleOf(tc.path, tc.text); !slices.Equal(got, tc.want) {
				t.Errorf("complaints:\n%q\nwant\n%q", got, tc.want)
			}
		})
	}
}

// styleOf says what a file does that the house style forbids.
func styleOf(path, text string) []string {
	var out []string
	stem := strings.TrimSuffix(strings.TrimSuffix(filepath.Base(path), ".go"), "_test")
	for _, word := range []string{stem, filepath.Base(filepath.Dir(path))} {
		if slices.Contains(vague, word) {
			out = append(out, fmt.Sprintf("%s: %q says nothing of what is in it", path, word))
		}
	}
	literals := literalColumns(text)
	for n, line := range strings.Split(text, "\n") {
		if w := width(line); w > columns && literals[n+1] < 50 && !isMarker(line) {
			out = append(out, fmt.Sprintf("%s:%d: %d columns; at most %d", path, n+1, w, columns))
		}
	}
	if excusedText[path] == "" {
		for _, r := range refused {
			if found := r.pattern.FindString(text); found != "" && (!r.tests || strings.HasSuffix(path, "_test.go")) {
				out = append(out, fmt.Sprintf("%s: has %q; write %s", path, strings.TrimSpace(found), r.instead))
			}
		}
	}
	return out
}

// isMarker: a directive or marker is one line for the tool that reads it.
func isMarker(line string) bool {
	line = strings.TrimSpace(line)
	return strings.HasPrefix(line, "// +") || strings.HasPrefix(line, "//go:")
}

func width(line string) int { return len([]rune(strings.ReplaceAll(line, "\t", "    "))) }

// literalColumns is, by line, how many columns its string literals take: a text is not broken for its length.
func literalColumns(text string) map[int]int {
	out := map[int]int{}
	files := token.NewFileSet()
	file := files.AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(file, []byte(text), nil, 0)
	for {
		pos, tok, literal := s.Scan()
		switch tok {
		case token.EOF:
			return out
		case token.STRING:
			for n, part := range strings.Split(literal, "\n") {
				out[file.Line(pos)+n] += width(part)
			}
		}
	}
}

// goFiles are the module's own, but for generated ones.
func goFiles(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if err == nil && path != root && (d.Name()[0] == '.' || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasPrefix(d.Name(), "zz_generated") {
			return nil
		}
		text, err := os.ReadFile(path)
		out[filepath.ToSlash(strings.TrimPrefix(path, root+string(filepath.Separator)))] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
