package adminapi

import (
	"time"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
)

// PeerInviteRequest opens an invitation for one named peer.
type PeerInviteRequest struct {
	Peer string        `json:"peer"`
	TTL  time.Duration `json:"ttl"` // at most 15 min
}

// PeerInviteResponse is the invitation. Token is a secret.
type PeerInviteResponse struct {
	Token       string    `json:"token"`
	Expires     time.Time `json:"expires"`
	TrustDomain string    `json:"trustDomain"`
	Fingerprint string    `json:"fingerprint"` // of this mesh: what both administrators compare
	Addresses   []string  `json:"addresses"`
}

// PeerAcceptRequest accepts a peer's invitation.
type PeerAcceptRequest struct {
	Token string `json:"token"`
	Name  string `json:"name,omitempty"` // local name for the peer; default: what it proposes
}

// PeerAcceptResponse is the peering made.
type PeerAcceptResponse struct {
	Peer             string `json:"peer"`
	TrustDomain      string `json:"trustDomain"`
	KnownAs          string `json:"knownAs"`
	OwnFingerprint   string `json:"ownFingerprint"`
	PeersFingerprint string `json:"peersFingerprint"`
}

// PeerRequest names a peer.
type PeerRequest struct {
	Peer string `json:"peer,omitempty"` // empty: all, where a list is asked for
}

// PeerListResponse lists peers.
type PeerListResponse struct {
	Peers []PeerStatus `json:"peers"`
}

// PeerStatus is everything known about one peer.
type PeerStatus struct {
	Name        string   `json:"name"`
	TrustDomain string   `json:"trustDomain"`
	KnownAs     string   `json:"knownAs"`
	Source      string   `json:"source"` // file:line of its MeshPeer, or "peering" when made by a token
	Addresses   []string `json:"addresses"`
	// over its roots, its gateways' identities and addresses
	PeersFingerprint  string              `json:"peersFingerprint"`
	OwnFingerprint    string              `json:"ownFingerprint"` // likewise of this mesh, as the peer should see it
	Roots             []string            `json:"roots"`          // SHA-256 of the peer's roots
	OwnRoots          []string            `json:"ownRoots"`
	BundleSequence    uint64              `json:"bundleSequence"`
	BundleTime        time.Time           `json:"bundleTime"`
	MaxBundleAge      time.Duration       `json:"maxBundleAge"`
	RootNotAfter      time.Time           `json:"rootNotAfter"`
	CatalogueSequence uint64              `json:"catalogueSequence"`
	CatalogueTime     time.Time           `json:"catalogueTime"`
	Offered           int                 `json:"offered"`
	Exports           int                 `json:"exports"`
	Imports           int                 `json:"imports"`
	Counts            agentapi.PeerCounts `json:"counts"`
	Conditions        []Condition         `json:"conditions"`
}

// Condition follows the Kubernetes convention.
type Condition struct {
	// TrustEstablished, BundleFresh, CatalogueSynced, DataPathReady, Expiring, Suspended
	Type    string    `json:"type"`
	Status  string    `json:"status"` // True, False, Unknown
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// PeerProbeRequest asks for a synthetic request through both gateways.
type PeerProbeRequest struct {
	Peer string `json:"peer"`
	// namespace/name of a FederatedImport that the peer serves; empty: its control plane alone
	Import string `json:"import,omitempty"`
}

// PeerProbeResponse is how far a probe came, and what each leg took.
type PeerProbeResponse struct {
	Peer   string        `json:"peer"`
	Import string        `json:"import,omitempty"`
	Asked  string        `json:"asked"` // the name in the handshake with the peer's gateway
	Took   time.Duration `json:"took"`  // of it all; zero when no answer came
	Legs   []ProbeLeg    `json:"legs"`
	Proves string        `json:"proves"` // what the last leg shows and does not show
}

// ProbeLeg is one step on the way.
type ProbeLeg struct {
	From   string        `json:"from"`
	To     string        `json:"to"`
	Step   string        `json:"step"`  // consent, connect, handshake, answer, ready
	State  string        `json:"state"` // ok, failed, untried
	Took   time.Duration `json:"took,omitempty"`
	Detail string        `json:"detail,omitempty"`
	Remedy string        `json:"remedy,omitempty"`
}

// States of a ProbeLeg.
const (
	LegOK      = "ok"
	LegFailed  = "failed"
	LegUntried = "untried"
)

// PeerManifestRequest asks for the MeshPeer file that describes this mesh to a peer, for peering without a connection.
type PeerManifestRequest struct {
	As      string `json:"as"`      // name under which the peer will know this mesh: metadata.name of the file
	KnownAs string `json:"knownAs"` // name under which this mesh will know the peer
}

// PeerManifestResponse is that file.
type PeerManifestResponse struct {
	YAML        string `json:"yaml"`
	Fingerprint string `json:"fingerprint"`
}

// CatalogueResponse is what peers offer.
type CatalogueResponse struct {
	Entries []CatalogueEntry `json:"entries"`
}

// CatalogueEntry is one offer.
type CatalogueEntry struct {
	Peer string `json:"peer"`
	snapshot.OfferedService
	ImportedAs []string `json:"importedAs"`
}

// ExportsResponse is what this mesh offers.
type ExportsResponse struct {
	Exports []ExportStatus `json:"exports"`
}

// ExportStatus is one service offered to one peer.
type ExportStatus struct {
	Name      string `json:"name"` // namespace/name of the FederatedExport
	Service   string `json:"service"`
	Port      uint16 `json:"port"`
	Protocol  string `json:"protocol"`
	Alias     string `json:"alias"`
	Peer      string `json:"peer"`
	SNI       string `json:"sni"`
	Rules     int    `json:"rules"`
	Endpoints int    `json:"endpoints"` // healthy ones
	State     string `json:"state"`     // Ready, or why not
}

// ImportsResponse is what this mesh uses of its peers.
type ImportsResponse struct {
	Imports []ImportStatus `json:"imports"`
}

// ImportStatus is one imported service.
type ImportStatus struct {
	Name     string   `json:"name"`
	Host     string   `json:"host"`
	Port     uint16   `json:"port"`
	Protocol string   `json:"protocol"`
	VIP      string   `json:"vip"`
	From     []string `json:"from"` // "cards/default/payments weight 1 priority 0 ready"
	Callers  []string `json:"callers"`
	State    string   `json:"state"`
}
