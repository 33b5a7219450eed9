package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
)

// addressed is the part of a service that decides its addresses.
type addressed struct {
	age
	host      string
	ref       model.Ref
	own       bool // vip and vip6 were assigned by the mesh
	vip, vip6 netip.Addr
	prefixes  []netip.Prefix
	ports     []uint16
	exportTo  []string
}

func addressedOf(services []*service) []addressed {
	out := make([]addressed, len(services))
	for i, s := range services {
		out[i] = addressed{
			age: s.age, host: s.Host, ref: s.Refs[0], own: s.own, vip: s.VIP, vip6: s.VIP6,
			prefixes: s.Prefixes, exportTo: s.ExportTo,
		}
		for _, p := range s.Ports {
			out[i].ports = append(out[i].ports, p.Number)
		}
	}
	return out
}

// claim is a use of an address and ports. Two services that the same caller sees cannot share one, since a proxy could
// not distinguish them.
type claim struct {
	prefix netip.Prefix
	port   uint16
}

// addresses maps services to their addresses, after conflicts are resolved.
type addresses struct {
	taken    map[claim][]*addressed
	reached  map[string]reached // by host; only services that do not get all that they want
	findings []finding.Finding
}

// reached is where a service is reached.
type reached struct {
	vip, vip6 netip.Addr
	prefixes  []netip.Prefix
}

// settleAddresses resolves address conflicts in the whole mesh. Addresses assigned by the mesh come first, then
// clusterIPs of Services, then addresses of ServiceEntries; within each, the oldest object. The loser of a conflict
// keeps its other addresses.
func settleAddresses(all []*addressed) *addresses {
	out := &addresses{taken: map[claim][]*addressed{}, reached: map[string]reached{}}
	if !slices.ContainsFunc(all, func(a *addressed) bool { return !a.own || len(a.prefixes) > 0 }) {
		return out // the mesh assigns no address twice
	}
	slices.SortFunc(all, func(a, b *addressed) int {
		return cmp.Or(a.rank()-b.rank(), a.compare(b.age), cmp.Compare(a.host, b.host))
	})
	vips := make([]reached, len(all))
	for i, a := range all {
		vips[i].vip, vips[i].vip6 = a.vip, a.vip6
		for _, vip := range []*netip.Addr{&vips[i].vip, &vips[i].vip6} {
			if vip.IsValid() && !out.claim(a, single(*vip)) {
				*vip = netip.Addr{}
			}
		}
	}
	for i, a := range all {
		r := &vips[i]
		for _, p := range a.prefixes {
			known := p == single(r.vip) || p == single(r.vip6) || slices.Contains(r.prefixes, p)
			if !known && out.claim(a, p) {
				r.prefixes = append(r.prefixes, p)
			}
		}
		if r.vip != a.vip || r.vip6 != a.vip6 || !slices.Equal(r.prefixes, a.prefixes) {
			out.reached[a.host] = *r
		}
	}
	out.taken = nil
	return out
}

func (a *addressed) rank() int {
	if a.own {
		return 0
	}
	return 1
}

// single returns the prefix of a single address; for an invalid address, an invalid prefix.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// claim claims an address for all ports of a service. It fails if another service that the same callers may see has one
// of them.
func (s *addresses) claim(a *addressed, prefix netip.Prefix) bool {
	for _, port := range a.ports {
		for _, other := range s.taken[claim{prefix, port}] {
			if other == a || !seenTogether(a.exportTo, other.exportTo) {
				continue
			}
			s.findings = append(s.findings, finding.New("ISM0025", a.key, "",
				fmt.Sprintf("%s port %d already belongs to %s; %s is not served there", address(prefix), port,
					other.ref, a.host)))
			return false
		}
	}
	for _, port := range a.ports {
		key := claim{prefix, port}
		s.taken[key] = append(s.taken[key], a)
	}
	return true
}

// seenTogether reports whether some namespace sees both what is exported to a and what is exported to b; nil means all
// namespaces.
func seenTogether(a, b []string) bool {
	if a == nil || b == nil {
		return (a == nil || len(a) > 0) && (b == nil || len(b) > 0)
	}
	return slices.ContainsFunc(a, func(ns string) bool { return slices.Contains(b, ns) })
}

func address(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
