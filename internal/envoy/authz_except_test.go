package envoy

import (
	"crypto/sha256"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/model"
)

func TestExcept(t *testing.T) {
	const ns = "spiffe://a.example/ns/"
	denied := []model.Match{
		{Kind: model.Exact, Value: ns + "default/sa/bob"},
		{Kind: model.Exact, Value: ns + "default/sa/bobby"},
		{Kind: model.Prefix, Value: ns + "other/"},
		{Kind: model.Exact, Value: "spiffe://b.example/ns/x/sa/y"},
	}
	expression, done := except(ns, denied)
	if !done {
		t.Fatal("four callers are too many")
	}
	re := regexp.MustCompile("^(?:" + expression + ")$")
	for id, want := range map[string]bool{
		"default/sa/bob": false, "default/sa/bobby": false, "other/sa/x": false, "other/": false,
		"default/sa/bo": true, "default/sa/bobb": true, "default/sa/bobbyx": true, "default/sa/alice": true,
		"othe/sa/x": true, "others/sa/x": true, "x-y/sa/z": true,
	} {
		if re.MatchString(ns+id) != want {
			t.Errorf("%s: %v, want %v", id, !want, want)
		}
	}
	if got, _ := except(ns+"other/", denied); got != "" {
		t.Errorf("below what is denied whole: %q, want nothing", got)
	}
	if re.MatchString("spiffe://b.example/ns/default/sa/alice") {
		t.Error("it matches beyond its prefix")
	}
}

// TestExceptIsBounded: what is done Envoy can make a program of. 800 callers are some; where they are too many it says
// so.
func TestExceptIsBounded(t *testing.T) {
	const ns = "spiffe://a.example/ns/"
	for _, c := range []struct {
		n    int
		name func(i int) string
		done bool
	}{
		{800, func(i int) string { return fmt.Sprintf("team-%d/sa/worker-%d", i%40, i) }, true},
		{50_000, func(i int) string { return fmt.Sprintf("team-%d/sa/worker-%d", i%40, i) }, false},
		{200, func(i int) string {
			return fmt.Sprintf("%x/sa/%x", sha256.Sum256([]byte{byte(i)}), sha256.Sum256([]byte{byte(i), 1}))
		}, false},
		{90, func(i int) string { return fmt.Sprintf("%x", sha256.Sum256([]byte{byte(i)})) }, true},
		{1, func(int) string { return strings.Repeat("a", 330) }, true},
		{1, func(int) string { return strings.Repeat("a", 331) }, false},
	} {
		var denied []model.Match
		for i := range c.n {
			denied = append(denied, model.Match{Kind: model.Exact, Value: ns + c.name(i)})
		}
		expression, done := except(ns, denied)
		if done != c.done {
			t.Errorf("%d callers such as %.60s: %d bytes, done %v", c.n, c.name(0), len(expression), done)
		}
		if re, err := syntax.Parse(expression, syntax.Perl); done && err == nil {
			if prog, err := syntax.Compile(re.Simplify()); err != nil || len(prog.Inst) > 1<<16 {
				t.Errorf("%d callers: a program of %d instructions, %v", c.n, len(prog.Inst), err)
			}
		} else if done {
			t.Errorf("%d callers: %.100s", c.n, err)
		}
	}
}
