// Package kind is the table of the configuration kinds that Isthmus reads. A new kind begins with a row here.
package kind

import (
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Family says whose kind it is, and with that how it is decoded and checked.
type Family string

// The families.
const (
	Ours  Family = "ours"  // a Go type of api/v1alpha1, checked against its CRD
	Istio Family = "istio" // a type of istio.io/client-go whose spec is a protobuf message
	Core  Family = "core"  // a type of k8s.io/api/core/v1
)

// Kind is one row of the table.
type Kind struct {
	Name   string // as in YAML: AuthorizationPolicy
	Plural string // as in a resource path: authorizationpolicies
	// APIVersions that are read, the preferred one first. All of them mean the same type.
	APIVersions []string
	Namespaced  bool
	Family      Family
	// NameIsLabel: the object's name becomes one label of a host name or an SNI, so it holds no dot.
	NameIsLabel bool
	// Security: the kind says who may call whom, or how. An object of it that is not carried out closes what it selects.
	Security bool
}

// All kinds, in the order in which documentation lists them.
var All = []Kind{
	{Name: "Mesh", Plural: "meshes", APIVersions: []string{v1alpha1.APIVersion}, Family: Ours, NameIsLabel: true},
	{Name: "MeshPeer", Plural: "meshpeers", APIVersions: []string{v1alpha1.APIVersion}, Family: Ours, NameIsLabel: true},
	{Name: "FederatedExport", Plural: "federatedexports", APIVersions: []string{v1alpha1.APIVersion}, Namespaced: true, Family: Ours},
	{Name: "FederatedImport", Plural: "federatedimports", APIVersions: []string{v1alpha1.APIVersion}, Namespaced: true, Family: Ours, NameIsLabel: true},
	{Name: "Namespace", Plural: "namespaces", APIVersions: []string{"v1"}, Family: Core, NameIsLabel: true},
	{Name: "Service", Plural: "services", APIVersions: []string{"v1"}, Namespaced: true, Family: Core, NameIsLabel: true},
	{
		Name: "PeerAuthentication", Plural: "peerauthentications",
		APIVersions: []string{"security.istio.io/v1", "security.istio.io/v1beta1"}, Namespaced: true, Family: Istio,
		Security: true,
	},
	{
		Name: "AuthorizationPolicy", Plural: "authorizationpolicies",
		APIVersions: []string{"security.istio.io/v1", "security.istio.io/v1beta1"}, Namespaced: true, Family: Istio,
		Security: true,
	},
	{Name: "ServiceEntry", Plural: "serviceentries", APIVersions: []string{"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"}, Namespaced: true, Family: Istio},
	{Name: "WorkloadEntry", Plural: "workloadentries", APIVersions: []string{"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"}, Namespaced: true, Family: Istio},
}

// Named finds a kind by its name.
func Named(name string) (Kind, bool) {
	if i := slices.IndexFunc(All, func(k Kind) bool { return k.Name == name }); i >= 0 {
		return All[i], true
	}
	return Kind{}, false
}

// Closes says whether an object of a kind that is not carried out closes what it selects. What is not in the table
// does, since nobody knows what it would have forbidden.
func Closes(name string) bool {
	k, ok := Named(name)
	return !ok || k.Security
}

// Names of all kinds, in the table's order.
func Names() []string {
	names := make([]string, len(All))
	for i, k := range All {
		names[i] = k.Name
	}
	return names
}

// Reads says whether the kind is read in this apiVersion.
func (k Kind) Reads(apiVersion string) bool { return slices.Contains(k.APIVersions, apiVersion) }

// String is "apiVersion Name", in the preferred version.
func (k Kind) String() string { return strings.TrimSpace(k.APIVersions[0] + " " + k.Name) }
