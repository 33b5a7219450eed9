package istioyaml

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestSplit(t *testing.T) {
	for text, want := range map[string][]string{
		"":                                 nil,
		"# only a comment\n---\n\n---\n":   nil,
		"a: 1":                             {`1 "a: 1"`},
		"\ufeffa: 1\n---\nb: 2\n":          {`1 "a: 1\n"`, `2 "---\nb: 2\n"`},
		"---\r\na: 1\r\n---\r\nb: 2\r\n":   {`1 "---\r\na: 1\r\n"`, `3 "---\r\nb: 2\r\n"`},
		"--- {a: 1}\n---b: 2\n --- \n":     {`1 "--- {a: 1}\n---b: 2\n --- \n"`},
		"a: 1\n...\nb: 2\n...\n":           {`1 "a: 1\n...\n"`, `3 "b: 2\n...\n"`},
		"%YAML 1.2\n---\na: 1\n":           {`2 "---\na: 1\n"`},
		"a: |\n  ---\n---\tb\n# c\n---\n#": {`1 "a: |\n  ---\n"`, `3 "---\tb\n# c\n"`},
	} {
		var got []string
		for _, c := range split([]byte(text)) {
			got = append(got, fmt.Sprintf("%d %q", c.line, c.text))
		}
		if !slices.Equal(got, want) {
			t.Errorf("split(%q) = %s, want %s", text, strings.Join(got, ", "), strings.Join(want, ", "))
		}
	}
}
