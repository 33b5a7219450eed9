package model

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"isthmus.dev/isthmus/internal/spiffe"
)

// Federation is the traffic that one gateway carries to and from peer meshes.
type Federation struct {
	Peers      []*Peer // sorted by name
	Exports    []*Export
	Imports    []*Import
	Invites    []Invite
	Bootstraps []Bootstrap
}

// Peer is another mesh. At least the control planes of the two may talk.
type Peer struct {
	Name        string
	Live        bool // exports and imports work: it is trusted, fresh, neither suspended nor expired
	TrustDomain spiffe.TrustDomain
	KnownAs     string   // this mesh's name at the peer
	Addresses   []string // host:port of its gateways
	GatewayIDs  []string // SPIFFE IDs of its gateways, matched exactly
	Ref         Ref
}

// Export offers one service port to one peer.
type Export struct {
	Name    string // namespace/name of the FederatedExport
	Alias   string
	Peer    *Peer
	Service *Service
	Port    *Port
	SNI     string
	Rules   []ExportRule // for HTTP; a request must match one of them
	Ref     Ref
}

// Set identifies the endpoints that serve an export.
func (e *Export) Set() EndpointSet { return EndpointSet{Host: e.Service.Host, Port: e.Port.Number} }

// IsReady reports whether an export has a ready endpoint.
func (m *Mesh) IsReady(e *Export) bool {
	return slices.ContainsFunc(m.Endpoints[e.Set()], func(ep Endpoint) bool { return ep.Healthy })
}

// ExportRule matches a peer's request when each non-empty field matches.
type ExportRule struct {
	Callers []Match // SPIFFE IDs that the peer's gateway asserts, always in the peer's trust domain
	Methods []string
	Paths   []Match
}

// Import is a service of other meshes under a local name.
type Import struct {
	ID       ServiceID // of the local Service too, if one has the same name
	Name     string    // namespace/name of the FederatedImport
	Host     string
	Port     uint16
	Protocol Protocol
	Callers  []string // SPIFFE IDs of callers in this mesh, sorted
	Remotes  []Remote // live peers only; sorted by priority, then as listed
	Local    *LocalPart
	Absent   []string // why other peers cannot serve now, a clause each: "peer cards is suspended"
	Ref      Ref
}

// Remote is one peer's export as used by an import.
type Remote struct {
	Peer      *Peer
	SNI       string
	Weight    uint32
	Priority  uint32
	Alias     string // the export's name and namespace at the peer
	Namespace string
}

// LocalPart is the share of the local Service that has the import's name.
type LocalPart struct{ Weight, Priority uint32 }

// Own identifies the endpoints of the local Service.
func (i *Import) Own() EndpointSet { return EndpointSet{Host: i.Host, Port: i.Port} }

// AtGateways returns where this mesh's gateways lead calls: to the gateways of the peers that serve the import.
func (i *Import) AtGateways() *Destination {
	d := &Destination{Set: EndpointSet{Host: "import/" + i.Host, Port: i.Port}, Changing: true, Absent: i.Absent}
	var priority uint32 // Envoy requires priorities without gaps; Remotes is sorted by them
	for n, remote := range i.Remotes {
		if n > 0 && remote.Priority != i.Remotes[n-1].Priority {
			priority++
		}
		d.Groups = append(
			d.Groups,
			Group{Name: remote.Peer.Name, SNI: remote.SNI, Priority: priority, Weight: remote.Weight},
		)
		d.Resolved = d.Resolved || slices.ContainsFunc(Gateways(remote.Peer.Addresses), Endpoint.named)
	}
	return d
}

// AtCallers returns where callers lead calls: to this mesh's gateways (whose endpoint set is the argument), to the
// local Service's endpoints, or to both. The priority of the gateways is that of the first peers that serve. Service
// and Port stay empty.
func (i *Import) AtCallers(gateways EndpointSet) Destination {
	d := Destination{Changing: true, Absent: i.Absent}
	switch {
	case i.Local == nil && len(i.Remotes) == 0:
		return d
	case i.Local == nil:
		d.Groups, d.Set = []Group{{Name: OwnGateways}}, gateways
		return d
	case len(i.Remotes) == 0:
		d.Groups, d.Set = ownEndpoints, i.Own()
		return d
	}
	first := i.Remotes[0].Priority
	own, theirs := Group{Name: OwnEndpoints, Weight: i.Local.Weight}, Group{Name: OwnGateways}
	for _, remote := range i.Remotes {
		if remote.Priority == first {
			theirs.Weight += remote.Weight
		}
	}
	d.Set = EndpointSet{Host: "mixed/" + i.Host, Port: i.Port}
	switch {
	case i.Local.Priority > first:
		own.Priority = 1
		d.Groups = []Group{theirs, own}
	case i.Local.Priority < first:
		theirs.Priority = 1
		fallthrough
	default:
		d.Groups = []Group{own, theirs}
	}
	return d
}

// Invite and Bootstrap open a gateway for the handshakes of a new peering.
type (
	// Invite is an open invitation to a peer.
	Invite struct{ ID, Peer string }
	// Bootstrap is an accepted invitation whose handshake is still in progress.
	Bootstrap struct{ ID, Address string }
)

// Gateways parses addresses of the form "host:port" into endpoints. It skips anything else.
func Gateways(addresses []string) []Endpoint {
	var out []Endpoint
	for _, a := range addresses {
		if ep, ok := hostPort(a); ok {
			out = append(out, ep)
		}
	}
	return out
}

// PairFamilies merges an IPv4 and an IPv6 endpoint that look like one gateway into one endpoint, so that an unreachable
// IP version costs no failed call. If any endpoint is a host name, nothing is paired: Envoy then accepts only one
// address per endpoint.
func PairFamilies(eps []Endpoint) []Endpoint {
	if slices.ContainsFunc(eps, Endpoint.named) {
		return eps
	}
	at := map[uint16][]netip.Addr{}
	for _, e := range eps {
		at[e.Port] = append(at[e.Port], e.Addr)
	}
	var out []Endpoint
	for _, port := range slices.Sorted(maps.Keys(at)) {
		for _, e := range EndpointsAt(at[port], port) {
			e.Healthy = true
			out = append(out, e)
		}
	}
	return out
}

// hostPort parses "host:port". ok is false for anything else.
func hostPort(s string) (Endpoint, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return Endpoint{Addr: ap.Addr(), Port: ap.Port(), Healthy: true}, true
	}
	for i := len(s) - 1; i > 0; i-- {
		if s[i] == ':' {
			n, err := strconv.ParseUint(s[i+1:], 10, 16)
			return Endpoint{Host: s[:i], Port: uint16(n), Healthy: true}, err == nil && n > 0
		}
	}
	return Endpoint{}, false
}
