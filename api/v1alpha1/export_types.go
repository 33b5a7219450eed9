package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FederatedExport offers one port of one service of its own namespace to named peers. Nothing is exported without one.
//
// +kubebuilder:object:root=true
type FederatedExport struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec FederatedExportSpec `json:"spec"`
}

// FederatedExportSpec says what is offered and to whom.
type FederatedExportSpec struct {
	// Service in the export's namespace.
	// +kubebuilder:validation:Required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([a-z0-9-]*[a-z0-9])?$`
	Service string `json:"service"`

	// Port of the service.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`

	// Alias is the name that peers see. Default: Service.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([a-z0-9-]*[a-z0-9])?$`
	Alias string `json:"alias,omitempty"`

	// To lists the peers that may call. Empty means nobody.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	To []ExportTo `json:"to,omitempty"`
}

// ExportTo is what one peer may do.
type ExportTo struct {
	// Peer is the name of a MeshPeer.
	// +kubebuilder:validation:Required
	// +kubebuilder:validation:MaxLength=63
	Peer string `json:"peer"`

	// Rules of which one must match for an HTTP request to pass. An HTTP export without rules passes nothing.
	// For a TCP export they must be absent: a raw connection carries the peer's identity alone.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	Rules []ExportRule `json:"rules,omitempty"`
}

// ExportRule matches a request when each of its non-empty fields matches. An empty rule matches all.
type ExportRule struct {
	// Callers are SPIFFE IDs as asserted by the peer's gateway, inside the peer's trust domain. One trailing "*" is a
	// prefix.
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=2048
	Callers []string `json:"callers,omitempty"`

	// Methods are HTTP methods, upper case.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:Pattern=`^[A-Z]+$`
	Methods []string `json:"methods,omitempty"`

	// Paths are exact, or prefixes with one trailing "*".
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:Pattern=`^/[^*;?#]*\*?$`
	// +kubebuilder:validation:items:MaxLength=1024
	Paths []string `json:"paths,omitempty"`
}
