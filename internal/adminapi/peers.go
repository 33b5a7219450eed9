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
	Fingerprint string    `json:"fingerprint"` // of this mesh, for both administrators to compare
	Addresses   []string  `json:"addresses"`
}

// PeerAcceptRequest accepts a peer's invitation.
type PeerAcceptRequest struct {
	Token string `json:"token"`
	Name  string `json:"name,omitempty"` // local name of the peer; default: the name that it proposes
}

// PeerAcceptResponse is the new peering.
type PeerAcceptResponse struct {
	Peer             string `json:"peer"`
	TrustDomain      string `json:"trustDomain"`
	KnownAs          string `json:"knownAs"`
	OwnFingerprint   string `json:"ownFingerprint"`
	PeersFingerprint string `json:"peersFingerprint"`
}

// PeerRequest selects a peer.
type PeerRequest struct {
	Peer string `json:"peer,omitempty"` // empty: all, for methods that list
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
	Source      string   `json:"source"` // file:line of its MeshPeer, or "peering" for one made by token
	Addresses   []string `json:"addresses"`
	// PeersFingerprint covers the peer's roots and its gateways' identities and addresses.
	PeersFingerprint  string              `json:"peersFingerprint"`
	OwnFingerprint    string              `json:"ownFingerprint"` // of this mesh, as the peer should see it
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

// Condition follows the Kubernetes API convention.
type Condition struct {
	// Type is TrustEstablished, BundleFresh, CatalogueSynced, DataPathReady, Expiring or Suspended.
	Type    string    `json:"type"`
	Status  string    `json:"status"` // True, False, Unknown
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// PeerProbeRequest asks for a test request through both gateways.
type PeerProbeRequest struct {
	Peer string `json:"peer"`
	// Import is the namespace/name of a FederatedImport that the peer serves. Empty tests only the peer's control
	// plane.
	Import string `json:"import,omitempty"`
}

// PeerProbeResponse says how far a probe got and how long each leg took.
type PeerProbeResponse struct {
	Peer   string        `json:"peer"`
	Import string        `json:"import,omitempty"`
	Asked  string        `json:"asked"` // server name in the handshake with the peer's gateway
	Took   time.Duration `json:"took"`  // in total; zero if no answer came
	Legs   []ProbeLeg    `json:"legs"`
	Proves string        `json:"proves"` // what the last leg does and does not prove
}

// ProbeLeg is one leg of the path.
type ProbeLeg struct {
	From   string        `json:"from"`
	To     string        `json:"to"`
	Step   string        `json:"step"`  // consent, connect, handshake, answer, ready
	State  string        `json:"state"` // ok, failed, untried
	Took   time.Duration `json:"took,omitempty"`
	Detail string        `json:"detail,omitempty"`
	Remedy string        `json:"remedy,omitempty"`
}

// The states of a ProbeLeg.
const (
	LegOK      = "ok"
	LegFailed  = "failed"
	LegUntried = "untried"
)

// PeerManifestRequest asks for the MeshPeer file that describes this mesh to a peer, for a peering by files.
type PeerManifestRequest struct {
	As      string `json:"as"`      // the peer's name for this mesh: metadata.name of the file
	KnownAs string `json:"knownAs"` // this mesh's name for the peer
}

// PeerManifestResponse contains that file.
type PeerManifestResponse struct {
	YAML        string `json:"yaml"`
	Fingerprint string `json:"fingerprint"`
}

// CatalogueResponse lists what peers offer.
type CatalogueResponse struct {
	Entries []CatalogueEntry `json:"entries"`
}

// CatalogueEntry is one offered service.
type CatalogueEntry struct {
	Peer string `json:"peer"`
	snapshot.OfferedService
	ImportedAs []string `json:"importedAs"`
}

// ExportsResponse lists what this mesh offers.
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
	Endpoints int    `json:"endpoints"` // ready ones
	State     string `json:"state"`     // Ready, or the reason why not
}

// ImportsResponse lists what this mesh uses of its peers.
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
