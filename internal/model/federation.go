package model

import (
	"slices"

	"isthmus.dev/isthmus/internal/spiffe"
)

// Peer is another mesh with which at least the control planes may talk now.
type Peer struct {
	Name        string
	Live        bool // exports and imports may work: trusted, fresh, neither suspended nor expired
	TrustDomain spiffe.TrustDomain
	KnownAs     string   // our name at the peer
	Addresses   []string // host:port of its gateways
	GatewayIDs  []string // SPIFFE IDs of its gateways, exact
	Ref         Ref
}

// Export is one service port offered to one peer.
type Export struct {
	Name    string // namespace/name of the FederatedExport
	Alias   string
	Peer    *Peer
	Service *Service
	Port    *Port
	SNI     string
	Rules   []ExportRule // HTTP: one must match
	Ref     Ref
}

// Set names the endpoints behind an export.
func (e *Export) Set() EndpointSet { return EndpointSet{Host: e.Service.Host, Port: e.Port.Number} }

// IsReady says that what is behind an export has an endpoint that is ready.
func (m *Mesh) IsReady(e *Export) bool {
	return slices.ContainsFunc(m.Endpoints[e.Set()], func(ep Endpoint) bool { return ep.Healthy })
}

// ExportRule matches a request of the peer when each of its non-empty fields matches.
type ExportRule struct {
	Callers []Match // asserted SPIFFE IDs, always inside the peer's trust domain
	Methods []string
	Paths   []Match
}

// Import is a service of other meshes under a local name.
type Import struct {
	ID       ServiceID // also the local Service that it stands beside or in place of
	Name     string    // namespace/name of the FederatedImport
	Host     string
	Port     uint16
	Protocol Protocol
	Callers  []string // SPIFFE IDs of this mesh, sorted
	Remotes  []Remote // those of live peers only; sorted by priority, then as written
	Local    *LocalPart
	Absent   []Absent // sources that cannot serve now, and why
	Ref      Ref
}

// Absent is a source of an import that nothing may be asked of now.
type Absent struct {
	Peer   string
	Reason string // a clause: "peer cards is suspended"
}

// Remote is one peer's export as an import uses it.
type Remote struct {
	Peer      *Peer
	SNI       string
	Weight    uint32
	Priority  uint32
	Alias     string // name and namespace of the export there
	Namespace string
}

// LocalPart is how the local endpoints of an import take part.
type LocalPart struct {
	Service  *Service
	Port     *Port
	Weight   uint32
	Priority uint32
}

// Invite and Bootstrap are openings in the gateways while a peering is being made.
type (
	// Invite is an open invitation.
	Invite struct{ ID, Peer string }
	// Bootstrap is an acceptance under way.
	Bootstrap struct{ ID, Address string }
)
