package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// MeshPeer is another mesh that this one agrees to meet at the gateways. It trusts nothing by itself:
// what may cross is said by FederatedExport and FederatedImport.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
type MeshPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec MeshPeerSpec `json:"spec"`
}

// MeshPeerSpec says who the peer is, where it is and by which roots it is known.
type MeshPeerSpec struct {
	// TrustDomain of the peer. Never this mesh's own, never shared by two peers.
	// +kubebuilder:validation:Required
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`
	TrustDomain string `json:"trustDomain"`

	// KnownAs is the name by which the peer knows this mesh; it stands in the SNI of what this mesh asks of the peer.
	// +kubebuilder:validation:Required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`
	KnownAs string `json:"knownAs"`

	// GatewayAddresses are host:port of the peer's federation gateways.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	GatewayAddresses []string `json:"gatewayAddresses"`

	// GatewayIDs are the exact SPIFFE IDs of the peer's gateways. All lie in TrustDomain.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=2048
	GatewayIDs []string `json:"gatewayIDs"`

	// Bundle is where the peer's roots come from.
	Bundle PeerBundle `json:"bundle"`

	// MaxBundleAge is how old the peer's roots may grow without a successful refresh before everything with
	// the peer is refused. Default 24h.
	// +optional
	MaxBundleAge *metav1.Duration `json:"maxBundleAge,omitempty"`

	// ExpiresAt ends the peering at that moment.
	// +optional
	ExpiresAt *metav1.Time `json:"expiresAt,omitempty"`

	// Suspend refuses every call to and from the peer, live connections included, and keeps the configuration. Roots
	// are followed meanwhile.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// RefuseProbes leaves the peer's probes ('isthmus peer probe' there) unanswered. Nothing else depends on them.
	// +optional
	RefuseProbes bool `json:"refuseProbes,omitempty"`
}

// PeerBundle is the first trust in a peer.
// +kubebuilder:validation:XValidation:rule="has(self.inline) || has(self.fingerprint)",message="give inline (PEM roots) or fingerprint"
type PeerBundle struct {
	// Inline holds the peer's root certificates, PEM. They are the first trust; refreshes replace them.
	// +optional
	// +kubebuilder:validation:MaxLength=65536
	Inline string `json:"inline,omitempty"`

	// Fingerprint is the SHA-256 of the peer's root certificate (DER), hex. The root is fetched and must match.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	Fingerprint string `json:"fingerprint,omitempty"`

	// Refresh asks the peer's SPIFFE bundle endpoint, through the gateways, for newer roots. Default true.
	// +optional
	Refresh *bool `json:"refresh,omitempty"`
}
