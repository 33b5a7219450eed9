package model

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
)

// ImportSource is where an endpoint of an import belongs. Sources of one priority share the calls by their weights, whatever
// the number of their endpoints; those of a higher number serve while none of a lower number can.
type ImportSource struct {
	Name     string // of the MeshPeer, or one of the two below
	SNI      string // by which a peer's gateway is asked; empty inside the mesh
	Priority uint32 // from 0, without gaps
	Weight   uint32
}

// What stands beside peers where a caller has local endpoints too. No MeshPeer has such a name.
const (
	LocalSource   = "(local)"
	GatewaySource = "(gateways)" // of this mesh, which carry calls to the peers
)

// Set names an import's sources as gateways reach them.
func (i *Import) Set() EndpointSet { return EndpointSet{Host: "import/" + i.Host, Port: i.Port} }

// MixedSet names an import's sources as callers reach them, where local endpoints are among them.
func (i *Import) MixedSet() EndpointSet { return EndpointSet{Host: "mixed/" + i.Host, Port: i.Port} }

// Mixed says that local endpoints and peers serve an import together.
func (i *Import) Mixed() bool { return i != nil && i.Local != nil && len(i.Remotes) > 0 }

// Named says that some gateway of a peer is known by a host name, which the gateway that calls it resolves.
func (i *Import) Named() bool {
	return slices.ContainsFunc(i.Remotes, func(r Remote) bool { return slices.ContainsFunc(Gateways(r.Peer.Addresses), Endpoint.named) })
}

func (e Endpoint) named() bool { return e.Host != "" }

// Endpoints of an import at the gateways: those of each peer that serves it. What a peer says is not ready gets nothing.
// Each address is one, of whichever IP version: their health is asked for, so that one that leads nowhere costs no call,
// while of an endpoint with two addresses Envoy would ask at the first alone.
func (i *Import) Endpoints(ready func(Remote) bool) []Endpoint {
	var out []Endpoint
	for n, r := range i.Remotes {
		for _, e := range Gateways(r.Peer.Addresses) {
			e.Weight, e.Healthy = 1, ready(r)
			e.Source = ImportSource{Name: r.Peer.Name, SNI: r.SNI, Priority: priority(i.Remotes, n), Weight: r.Weight}
			out = append(out, e)
		}
	}
	return out
}

// priority numbers the distinct priorities from 0 without gaps, as Envoy wants them. Remotes are sorted by priority.
func priority(rs []Remote, n int) uint32 {
	var p uint32
	for k := 1; k <= n; k++ {
		if rs[k].Priority != rs[k-1].Priority {
			p++
		}
	}
	return p
}

// MixedEndpoints of an import at its callers: the local endpoints, and this mesh's gateways in the place of the peers.
// The peers that serve first decide where they stand.
func (i *Import) MixedEndpoints(local, gateways []Endpoint) []Endpoint {
	first := i.Remotes[0].Priority
	ours := ImportSource{Name: LocalSource, Weight: i.Local.Weight}
	theirs := ImportSource{Name: GatewaySource}
	for _, r := range i.Remotes {
		if r.Priority == first {
			theirs.Weight += r.Weight
		}
	}
	switch {
	case i.Local.Priority < first:
		theirs.Priority = 1
	case i.Local.Priority > first:
		ours.Priority = 1
	}
	var out []Endpoint
	add := func(eps []Endpoint, s ImportSource) {
		for _, e := range eps {
			e.Source = s
			out = append(out, e)
		}
	}
	if ours.Priority == 0 {
		add(local, ours)
		add(gateways, theirs)
	} else {
		add(gateways, theirs)
		add(local, ours)
	}
	return out
}

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

// Paired are a peer's gateways with what looks like one gateway's IPv4 and IPv6 address as one endpoint, so that a version
// which does not lead there costs no call. Where host names are among them they stay apart: Envoy then knows one address
// an endpoint.
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
