// Package kind is the table of the configuration kinds that Isthmus reads. A new kind begins with a row here.
package kind

import (
	"reflect"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

// Family groups kinds by who defines them, which determines how they are decoded.
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
	// APIVersions that are accepted, the preferred one first. All denote the same type.
	APIVersions []string
	// Type is the struct type that objects of the kind point to: v1alpha1.Mesh.
	Type       reflect.Type
	Namespaced bool
	Family     Family
	// NameIsLabel means that the object's name becomes one label of a host name or SNI, so it must not contain a dot.
	NameIsLabel bool
	// Closes is what an object of the kind closes while it is written but not in effect.
	Closes Scope
	// Singleton means that a mesh has one object of the kind, the oldest, and cannot do without it.
	Singleton bool
}

// Scope says what an object closes while it is written but not in effect, because it cannot be read, or Isthmus or an
// Envoy fails on it. Nobody may call a closed workload.
type Scope int

// The scopes. The zero value is the safe one.
const (
	Selected Scope = iota // the workloads that the object selects, since it may have forbidden something
	Declared              // the workload with the object's name, since it is unknown which policies select it
	Nothing               // the object counts as absent
)

var (
	own           = []string{v1alpha1.APIVersion}
	core          = []string{"v1"}
	istioSecurity = []string{"security.istio.io/v1", "security.istio.io/v1beta1"}
	istioNetwork  = []string{"networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"}
)

// All lists the kinds, each after those that it depends on: a policy without a Service selects nothing.
var All = []Kind{
	{
		Name: "Mesh", Plural: "meshes", APIVersions: own, Type: reflect.TypeFor[v1alpha1.Mesh](), Family: Ours,
		NameIsLabel: true, Closes: Nothing, Singleton: true,
	},
	{
		Name: "Namespace", Plural: "namespaces", APIVersions: core, Type: reflect.TypeFor[corev1.Namespace](),
		Family: Core, NameIsLabel: true, Closes: Nothing,
	},
	{
		Name: "MeshPeer", Plural: "meshpeers", APIVersions: own, Type: reflect.TypeFor[v1alpha1.MeshPeer](),
		Family: Ours, NameIsLabel: true, Closes: Nothing,
	},
	{
		Name: "Service", Plural: "services", APIVersions: core, Type: reflect.TypeFor[corev1.Service](), Family: Core,
		Namespaced: true, NameIsLabel: true, Closes: Nothing,
	},
	{
		Name: "ServiceEntry", Plural: "serviceentries", APIVersions: istioNetwork,
		Type: reflect.TypeFor[networking.ServiceEntry](), Family: Istio, Namespaced: true, Closes: Nothing,
	},
	{
		Name: "WorkloadEntry", Plural: "workloadentries", APIVersions: istioNetwork,
		Type: reflect.TypeFor[networking.WorkloadEntry](), Family: Istio, Namespaced: true, Closes: Declared,
	},
	{
		Name: "Sidecar", Plural: "sidecars", APIVersions: istioNetwork, Type: reflect.TypeFor[networking.Sidecar](),
		Family: Istio, Namespaced: true, Closes: Nothing,
	},
	{
		Name: "FederatedExport", Plural: "federatedexports", APIVersions: own,
		Type: reflect.TypeFor[v1alpha1.FederatedExport](), Family: Ours, Namespaced: true, Closes: Nothing,
	},
	{
		Name: "FederatedImport", Plural: "federatedimports", APIVersions: own,
		Type: reflect.TypeFor[v1alpha1.FederatedImport](), Family: Ours, Namespaced: true, NameIsLabel: true,
		Closes: Nothing,
	},
	{
		Name: "PeerAuthentication", Plural: "peerauthentications", APIVersions: istioSecurity,
		Type: reflect.TypeFor[security.PeerAuthentication](), Family: Istio, Namespaced: true, Closes: Selected,
	},
	{
		Name: "AuthorizationPolicy", Plural: "authorizationpolicies", APIVersions: istioSecurity,
		Type: reflect.TypeFor[security.AuthorizationPolicy](), Family: Istio, Namespaced: true, Closes: Selected,
	},
}

var byType = func() map[reflect.Type]Kind {
	m := map[reflect.Type]Kind{}
	for _, k := range All {
		m[k.Type] = k
	}
	return m
}()

// Named finds a kind by name.
func Named(name string) (Kind, bool) {
	if i := Index(name); i >= 0 {
		return All[i], true
	}
	return Kind{}, false
}

// Index returns the position of a kind in All, or -1.
func Index(name string) int {
	return slices.IndexFunc(All, func(k Kind) bool { return k.Name == name })
}

// OfType returns the kind whose objects are pointers of this type, such as *v1alpha1.Mesh.
func OfType(pointer reflect.Type) (Kind, bool) {
	if pointer.Kind() != reflect.Pointer {
		return Kind{}, false
	}
	k, ok := byType[pointer.Elem()]
	return k, ok
}

// ClosedBy returns what an object closes that is not in effect. An object of an unknown kind closes what it selects,
// since it is unknown what it would have forbidden.
func ClosedBy(key Key) Scope {
	k, ok := Named(key.Kind)
	switch {
	case !ok:
		return Selected
	case k.Closes == Declared && key.Name == "":
		return Nothing
	}
	return k.Closes
}

// IsSingleton reports whether a mesh has only one object of the kind of this name.
func IsSingleton(name string) bool {
	k, _ := Named(name)
	return k.Singleton
}

// Names returns the names of all kinds in the order of All.
func Names() []string {
	names := make([]string, len(All))
	for i, k := range All {
		names[i] = k.Name
	}
	return names
}

// Security reports whether the kind decides who may call whom, or how. It is false for the zero Kind.
func (k Kind) Security() bool { return k.Name != "" && k.Closes == Selected }

// Reads reports whether the kind is accepted in this apiVersion.
func (k Kind) Reads(apiVersion string) bool { return slices.Contains(k.APIVersions, apiVersion) }

// String returns "apiVersion Name" with the preferred version.
func (k Kind) String() string { return strings.TrimSpace(k.APIVersions[0] + " " + k.Name) }
