package model

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"isthmus.dev/isthmus/internal/spiffe"
)

// Federation is what crosses one gateway to and from other meshes.
type Federation struct {
	Peers      []*Peer // sorted by name
	Exports    []*Export
	Imports    []*Import
	Invites    []Invite
	Bootstraps []Bootstrap
}

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
	Absent   []string // why others cannot serve now, a clause each: "peer cards is suspended"
	Ref      Ref
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

// LocalPart is how the endpoints of the local Service of the import's name take part.
type LocalPart struct{ Weight, Priority uint32 }

// Own is the set of the local Service's endpoints.
func (i *Import) Own() EndpointSet { return EndpointSet{Host: i.Host, Port: i.Port} }

// RouteAtGateways leads from this mesh's gateways to those of the peers that serve the import.
func (i *Import) RouteAtGateways() *Route {
	r := &Route{Set: EndpointSet{Host: "import/" + i.Host, Port: i.Port}, Changing: true, Absent: i.Absent}
	var priority uint32 // without gaps, as Envoy wants them; remotes are sorted
	for n, remote := range i.Remotes {
		if n > 0 && remote.Priority != i.Remotes[n-1].Priority {
			priority++
		}
		r.To = append(
			r.To,
			Destination{Name: remote.Peer.Name, SNI: remote.SNI, Priority: priority, Weight: remote.Weight},
		)
		r.Resolved = r.Resolved || slices.ContainsFunc(Gateways(remote.Peer.Addresses), Endpoint.named)
	}
	return r
}

// RouteAtCallers leads to the mesh's gateways, whose endpoint set is given, to the local Service's endpoints, or to
// both. Where the gateways stand among them the peers that serve first decide.
func (i *Import) RouteAtCallers(gateways EndpointSet) *Route {
	r := &Route{Changing: true, Absent: i.Absent}
	switch {
	case i.Local == nil && len(i.Remotes) == 0:
		return r
	case i.Local == nil:
		r.To, r.Set = []Destination{{Name: OwnGateways}}, gateways
		return r
	case len(i.Remotes) == 0:
		r.To, r.Set = ownEndpoints, i.Own()
		return r
	}
	first := i.Remotes[0].Priority
	own, theirs := Destination{Name: OwnEndpoints, Weight: i.Local.Weight}, Destination{Name: OwnGateways}
	for _, remote := range i.Remotes {
		if remote.Priority == first {
			theirs.Weight += remote.Weight
		}
	}
	r.Set = EndpointSet{Host: "mixed/" + i.Host, Port: i.Port}
	switch {
	case i.Local.Priority > first:
		own.Priority = 1
		r.To = []Destination{theirs, own}
	case i.Local.Priority < first:
		theirs.Priority = 1
		fallthrough
	default:
		r.To = []Destination{own, theirs}
	}
	return r
}

// Invite and Bootstrap are openings in the gateways while a peering is being made.
type (
	// Invite is an open invitation.
	Invite struct{ ID, Peer string }
	// Bootstrap is an acceptance under way.
	Bootstrap struct{ ID, Address string }
)

// Gateways are the endpoints at addresses of the form "host:port". What is none is left out.
func Gateways(addresses []string) []Endpoint {
	var out []Endpoint
	for _, a := range addresses {
		if ep, ok := hostPort(a); ok {
			out = append(out, ep)
		}
	}
	return out
}

// Paired are a peer's gateways with what looks like one gateway's IPv4 and IPv6 address as one endpoint, so that a
// version which does not lead there costs no call. Where host names are among them they stay apart: Envoy then knows
// one address an endpoint.
func Paired(eps []Endpoint) []Endpoint {
	if slices.ContainsFunc(eps, Endpoint.named) {
		return eps
	}
	at := map[uint16][]netip.Addr{}
	for _, e := range eps {
		at[e.Port] = append(at[e.Port], e.Addr)
	}
	var out []Endpoint
	for _, port := range slices.Sorted(maps.Keys(at)) {
		for _, e := range Places(at[port], port) {
			e.Healthy = true
			out = append(out, e)
		}
	}
	return out
}

// hostPort takes "host:port" apart; ok is false for anything else.
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
