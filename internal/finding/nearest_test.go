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
		"web.defalt.svc.cluster.local": "web.default.svc.cluster.local", "web.default": "", "default.cart": "default/cart",
		"carts": "cart", "/": "", strings.Repeat("default/cart", 20): "",
	} {
		if got := Nearest(name, append(names, strings.Repeat("x", 1<<20))); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}
