package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
)

// addressed is what a service says of where it is reached.
type addressed struct {
	age
	host      string
	ref       model.Ref
	own       bool // vip and vip6 are what the mesh gave it
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

// claim is an address that something is reached by. Two services cannot share one: a proxy could not tell them apart.
type claim struct {
	prefix netip.Prefix
	port   uint16
}

// addresses are who is reached where.
type addresses struct {
	taken    map[claim][]*addressed
	reached  map[string]reached // by host; of those who do not get what they want
	findings []finding.Finding
}

// reached is where a service is reached.
type reached struct {
	vip, vip6 netip.Addr
	prefixes  []netip.Prefix
}

// settleAddresses looks at the whole mesh. Those that it gave itself come first, then a Service's clusterIP, then the
// addresses of ServiceEntries; among equals the oldest object. Who comes later keeps its other addresses.
func settleAddresses(all []*addressed) *addresses {
	out := &addresses{taken: map[claim][]*addressed{}, reached: map[string]reached{}}
	if !slices.ContainsFunc(all, func(a *addressed) bool { return !a.own || len(a.prefixes) > 0 }) {
		return out // the mesh gives no address twice
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

// single is the prefix of one address; of none, no prefix.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// claim takes an address for all ports of a service, unless another that the same callers may see has one of them.
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

// seenTogether says whether some namespace may see what is exported to these, and to those; nil means every one.
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
