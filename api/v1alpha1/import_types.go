package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// FederatedImport gives an exported service of one or more peers a local name. Never made automatically.
// The local host is <name>.<namespace>.svc.<mesh domain>.
//
// +kubebuilder:object:root=true
type FederatedImport struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec FederatedImportSpec `json:"spec"`
}

// FederatedImportSpec says what is imported, under which local port, and who may call it.
type FederatedImportSpec struct {
	// Port on which local callers find it.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`

	// Protocol spoken. Default HTTP.
	// +optional
	Protocol ImportProtocol `json:"protocol,omitempty"`

	// From lists the peers that serve it.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	From []ImportFrom `json:"from"`

	// Local lets endpoints of the local Service of the same name and namespace take part. Absent: they do not.
	// +optional
	Local *ImportLocal `json:"local,omitempty"`

	// Callers are the local workloads that may call: "<service account>" of this namespace or "<namespace>/<service
	// account>".
	// Empty means nobody.
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=127
	// +kubebuilder:validation:items:Pattern=`^([a-z0-9]([a-z0-9-]*[a-z0-9])?/)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`
	Callers []string `json:"callers,omitempty"`
}

// ImportProtocol is what an import speaks.
// +kubebuilder:validation:Enum=HTTP;HTTP2;GRPC;TCP
type ImportProtocol string

// ImportFrom is one peer's export.
type ImportFrom struct {
	// Peer is the name of a MeshPeer.
	// +kubebuilder:validation:Required
	// +kubebuilder:validation:MaxLength=63
	Peer string `json:"peer"`

	// Name is the alias under which the peer exports it. Default: the import's name.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z]([a-z0-9-]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// Namespace of the export at the peer. Default: the import's namespace.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	Namespace string `json:"namespace,omitempty"`

	// Weight among the sources of one priority. Default 1.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Weight *int32 `json:"weight,omitempty"`

	// Priority: sources of a higher number serve only when no source of a lower number is healthy. Default 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=7
	Priority int32 `json:"priority,omitempty"`
}

// ImportLocal is the part of the local endpoints.
type ImportLocal struct {
	// Weight among the sources of one priority. Default 1.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Weight *int32 `json:"weight,omitempty"`

	// Priority as in ImportFrom. Default 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=7
	Priority int32 `json:"priority,omitempty"`
}
