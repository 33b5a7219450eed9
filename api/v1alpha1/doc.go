// Package v1alpha1 holds Isthmus's own configuration kinds, group isthmus.dev.
// Everything that Istio's kinds can say is said with Istio's kinds; these say only the rest.
//
// +kubebuilder:object:generate=true
// +groupName=isthmus.dev
package v1alpha1

// Group, Version and APIVersion name this package's kinds as YAML does.
const (
	Group      = "isthmus.dev"
	Version    = "v1alpha1"
	APIVersion = Group + "/" + Version
)
