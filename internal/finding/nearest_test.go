package finding

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	fields := []string{"principals", "notPrincipals", "namespaces", "ipBlocks"}
	for name, want := range map[string]string{
		"principal": "principals", "Principals": "principals", "not_principals": "notPrincipals",
		"ipblocks":   "ipBlocks",
		"namepsaces": "namespaces", "methods": "", "": "", strings.Repeat("x", 1000): "",
	} {
		if got := Nearest(name, fields); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestDidYouMean(t *testing.T) {
	for name, want := range map[string]string{
		"matchLabel": "did you mean matchLabels?",
		"app":        "remove it, or use one of: matchLabels",
	} {
		if got := DidYouMean(name, []string{"matchLabels"}); got != want {
			t.Errorf("DidYouMean(%q) = %q, want %q", name, got, want)
		}
	}
	if got, want := DidYouMean("hosst", []string{"hosts", "ports"}),
		"did you mean hosts? It is one of: hosts, ports"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := DidYouMean("app", nil); got != "remove it" {
		t.Error(got)
	}
}

// What two names share in one part says nothing of another part.
func TestNearestOfParts(t *testing.T) {
	names := []string{
		"default/cart", "default/checkout", "production/cart", "web.default.svc.cluster.local",
		"api.shop.svc.cluster.local", "cart",
	}
	for name, want := range map[string]string{
		"default/kart": "default/cart", "defualt/chekout": "default/checkout", "default/api": "",
		"production/shop": "", "prodution/cart": "production/cart", "staging/cart": "",
		"wed.default.svc.cluster.local": "web.default.svc.cluster.local", "db.default.svc.cluster.local": "",
		"web.defalt.svc.cluster.local": "web.default.svc.cluster.local", "web.default": "",
		"default.cart": "default/cart",
		"carts":        "cart", "/": "", strings.Repeat("default/cart", 20): "",
	} {
		if got := Nearest(name, append(names, strings.Repeat("x", 1<<20))); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}
