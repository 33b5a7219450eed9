package kind_test

import (
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/kind"
)

func TestNamed(t *testing.T) {
	k, ok := kind.Named("AuthorizationPolicy")
	if !ok || k.String() != "security.istio.io/v1 AuthorizationPolicy" || !k.Namespaced || k.Family != kind.Istio {
		t.Errorf("Named(AuthorizationPolicy) = %+v, %v", k, ok)
	}
	if !k.Reads("security.istio.io/v1beta1") || k.Reads("security.istio.io/v1alpha1") || k.Reads("v1") {
		t.Errorf("Reads is wrong for %v", k.APIVersions)
	}
	if _, ok := kind.Named("authorizationpolicy"); ok {
		t.Error("kinds are case-sensitive")
	}
}

func TestAllRowsAreWhole(t *testing.T) {
	names := kind.Names()
	slices.Sort(names)
	if len(slices.Compact(names)) != len(kind.All) {
		t.Error("a kind stands twice in the table")
	}
	for _, k := range kind.All {
		if k.Name == "" || len(k.APIVersions) == 0 || k.Family == "" || k.Plural != strings.ToLower(k.Plural) ||
			!strings.HasSuffix(k.Plural, "s") {
			t.Errorf("row %+v is not whole", k)
		}
	}
}
