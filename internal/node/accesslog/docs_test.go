package accesslog

import (
	"os"
	"regexp"
	"slices"
	"testing"
)

// TestClassesAreDocumented: the table of docs/requests.md has every class that reason.go may write, and no other.
func TestClassesAreDocumented(t *testing.T) {
	found := func(file, section, pattern string) (out []string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		part := regexp.MustCompile(section).Find(text)
		for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(part, -1) {
			out = append(out, string(m[1]))
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	written := found("reason.go", `(?s).*`, `\{\s*verdict\w+,\s+"([a-z-]+)"`)
	told := found("../../../docs/requests.md", `(?s)\| class in the log \|.*?\n\n`, "[,|;] `([a-z-]+)`")
	if len(written) < 20 || !slices.Equal(written, told) {
		t.Errorf("classes of reason.go:\n%v\nof docs/requests.md:\n%v", written, told)
	}
}
