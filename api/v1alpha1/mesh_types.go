package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Mesh sets the identity and the posture of one mesh. There is exactly one per control plane.
// Its zero posture is the safe one: mTLS STRICT, default action Deny, outbound registry-only, hardened paths.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
type Mesh struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec MeshSpec `json:"spec"`
}

// MeshSpec is what an operator says of the mesh as a whole.
type MeshSpec struct {
	// TrustDomain is the SPIFFE trust domain of every identity in the mesh (SPIFFE ID §2.1). It cannot change later.
	// +kubebuilder:validation:Required
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`
	TrustDomain string `json:"trustDomain"`

	// Domain is the DNS suffix of the mesh's services. Default "cluster.local".
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`
	Domain string `json:"domain,omitempty"`

	// MTLS is the mesh-wide mode where no PeerAuthentication says otherwise. Default STRICT.
	// +optional
	MTLS MTLSMode `json:"mtls,omitempty"`

	// DefaultAction applies to a workload that no ALLOW AuthorizationPolicy selects. Default Deny.
	// +optional
	DefaultAction DefaultAction `json:"defaultAction,omitempty"`

	// Outbound says what happens to calls to addresses that the registry does not list. Default RegistryOnly.
	// +optional
	Outbound OutboundMode `json:"outbound,omitempty"`

	// SameNode says how a call goes to a workload that the same Envoy serves. Default InProcess.
	// +optional
	SameNode SameNodeMode `json:"sameNode,omitempty"`

	// RootNamespace is where policies apply to the whole mesh. Default "isthmus-system".
	// +optional
	// +kubebuilder:validation:MaxLength=63
	RootNamespace string `json:"rootNamespace,omitempty"`

	// CertificateTTL is the life of a workload certificate. Default 1h.
	// +optional
	CertificateTTL *metav1.Duration `json:"certificateTTL,omitempty"`

	// TrustDomainAliases are other trust domains whose principals in policies mean this mesh.
	// +optional
	// +kubebuilder:validation:MaxItems=16
	TrustDomainAliases []string `json:"trustDomainAliases,omitempty"`

	// Federation is how this mesh presents itself to peers; needed once it has any.
	// +optional
	Federation *MeshFederation `json:"federation,omitempty"`
}

// MeshFederation is what peers need to know to reach this mesh.
type MeshFederation struct {
	// Name is what this mesh proposes to be called by its peers. Default: the Mesh's own name.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`

	// GatewayAddresses are the host:port pairs at which peers reach this mesh's federation gateways.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	GatewayAddresses []string `json:"gatewayAddresses"`
}

// MTLSMode is a mesh-wide mutual TLS mode.
// +kubebuilder:validation:Enum=STRICT;PERMISSIVE;DISABLE
type MTLSMode string

// The modes of PeerAuthentication, as Istio names them.
const (
	MTLSStrict     MTLSMode = "STRICT"
	MTLSPermissive MTLSMode = "PERMISSIVE"
	MTLSDisable    MTLSMode = "DISABLE"
)

// DefaultAction is what happens where no policy speaks.
// +kubebuilder:validation:Enum=Deny;Allow
type DefaultAction string

// The default actions; the zero value means Deny.
const (
	DefaultDeny  DefaultAction = "Deny"
	DefaultAllow DefaultAction = "Allow"
)

// OutboundMode is what happens to a call to an unlisted address.
// +kubebuilder:validation:Enum=RegistryOnly;AllowAny
type OutboundMode string

// The outbound modes; the zero value means RegistryOnly.
const (
	OutboundRegistryOnly OutboundMode = "RegistryOnly"
	OutboundAllowAny     OutboundMode = "AllowAny"
)

// SameNodeMode is the way of a call between two workloads of one Envoy. What travels is the same on both: mutual TLS.
// +kubebuilder:validation:Enum=InProcess;Network
type SameNodeMode string

// The ways; the zero value means InProcess.
const (
	SameNodeInProcess SameNodeMode = "InProcess"
	SameNodeNetwork   SameNodeMode = "Network"
)
