package envoy

import (
	"regexp"
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
	re := regexp.MustCompile("^(?:" + except(ns, denied) + ")$")
	for id, want := range map[string]bool{
		"default/sa/bob": false, "default/sa/bobby": false, "other/sa/x": false, "other/": false,
		"default/sa/bo": true, "default/sa/bobb": true, "default/sa/bobbyx": true, "default/sa/alice": true, "othe/sa/x": true, "others/sa/x": true, "x-y/sa/z": true,
	} {
		if re.MatchString(ns+id) != want {
			t.Errorf("%s: %v, want %v", id, !want, want)
		}
	}
	if got := except(ns+"other/", denied); got != "" {
		t.Errorf("below what is denied whole: %q, want nothing", got)
	}
	if re.MatchString("spiffe://b.example/ns/default/sa/alice") {
		t.Error("it matches beyond its prefix")
	}
}
