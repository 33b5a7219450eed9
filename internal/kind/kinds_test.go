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

// What an object closes that is not carried out; what is unknown closes as much as may have been meant.
func TestClosedBy(t *testing.T) {
	for name, want := range map[string]kind.Scope{
		"AuthorizationPolicy": kind.Selected, "PeerAuthentication": kind.Selected,
		"RequestAuthentication": kind.Selected, "": kind.Selected, "WorkloadEntry": kind.Declared, "Mesh": kind.Nothing,
		"MeshPeer": kind.Nothing, "FederatedExport": kind.Nothing, "FederatedImport": kind.Nothing,
		"Namespace": kind.Nothing, "Service": kind.Nothing, "ServiceEntry": kind.Nothing, "Sidecar": kind.Nothing,
	} {
		if got := kind.ClosedBy(kind.Key{Kind: name, Namespace: "shop", Name: "cart"}); got != want {
			t.Errorf("%q closes %v, want %v", name, got, want)
		}
	}
	if got := kind.ClosedBy(kind.Key{Kind: "WorkloadEntry", Namespace: "shop"}); got != kind.Nothing {
		t.Errorf("an entry without a name closes %v", got)
	}
	if (kind.Kind{}).Security() {
		t.Error("no kind is of security")
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
