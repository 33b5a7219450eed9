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
