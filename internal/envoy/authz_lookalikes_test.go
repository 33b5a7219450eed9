package envoy

import (
	"regexp"
	"strings"
	"testing"
)

func TestRemovedLookalikes(t *testing.T) {
	removes := func(names []string, usual, name string) bool {
		for _, m := range removedLookalikes(names, usual) {
			if regexp.MustCompile(`\A(?:` + m.GetRemoveOnMatch().KeyMatcher.GetSafeRegex().Regex + `)\z`).
				MatchString(name) {
				return true
			}
		}
		return false
	}
	for _, c := range []struct{ usual, removed, left string }{
		{
			"_-", "x.role x!role a.b-c a-b.c a_b.c a.b.c",
			"x-role x_role a-b-c a_b-c a_b_c xrole a.bc x.roles x-role.s ax.role",
		},
		{"-", "x_role x.role a_b-c a-b_c a_b_c a.b_c", "x-role a-b-c x role a..b-c"},
	} {
		for want, list := range map[bool]string{true: c.removed, false: c.left} {
			for _, name := range strings.Fields(list) {
				if got := removes([]string{"x-role", "a-b-c", "one"}, c.usual, name); got != want {
					t.Errorf("%s beside %q: removed %v", name, c.usual, got)
				}
			}
		}
	}
	// A policy may ask for a longer name than an expression has room for.
	for _, m := range removedLookalikes([]string{
		strings.Repeat("a-", 127) + "a",
		strings.Repeat("abcdefghijklmno-", 15) + "a",
	}, "-") {
		if n := len(m.GetRemoveOnMatch().KeyMatcher.GetSafeRegex().Regex); n > 2*maxExpression {
			t.Errorf("an expression of %d bytes", n)
		}
	}
}
