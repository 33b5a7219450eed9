package compile

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
)

// claim is an address that something is reached by. Two services cannot share one: a proxy could not tell them apart.
type claim struct {
	prefix netip.Prefix
	port   uint16
}

// addresses settles who is reached where. The mesh's own virtual addresses come first, then a Service's clusterIP, then the
// addresses of ServiceEntries; among equals the oldest object. Who comes later keeps its other addresses.
func addresses(c *compiler) {
	services := slices.Collect(maps.Values(c.mesh.Services))
	slices.SortFunc(services, func(a, b *model.Service) int {
		return cmp.Or(c.addressRank(a)-c.addressRank(b), c.cfg.Older(c.keys[a], c.keys[b]), cmp.Compare(a.Host, b.Host))
	})
	taken := map[claim][]*model.Service{}
	for _, svc := range services {
		for _, vip := range []*netip.Addr{&svc.VIP, &svc.VIP6} {
			if vip.IsValid() && !c.claim(taken, svc, single(*vip)) {
				*vip = netip.Addr{}
			}
		}
	}
	for _, svc := range services {
		var kept []netip.Prefix
		for _, p := range svc.Prefixes {
			if own := p == single(svc.VIP) || p == single(svc.VIP6); !own && !slices.Contains(kept, p) && c.claim(taken, svc, p) {
				kept = append(kept, p)
			}
		}
		svc.Prefixes = kept
	}
}

func (c *compiler) addressRank(svc *model.Service) int {
	if four, six := c.ownVIPs(svc); svc.VIP == four && svc.VIP6 == six {
		return 0
	}
	return 1
}

// single is the prefix of one address; of none, no prefix.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// claim takes an address for all ports of a service, unless another that the same callers may see has one of them.
func (c *compiler) claim(taken map[claim][]*model.Service, svc *model.Service, prefix netip.Prefix) bool {
	for _, p := range svc.Ports {
		for _, other := range taken[claim{prefix, p.Number}] {
			if other == svc || !seenTogether(svc, other) {
				continue
			}
			c.findings = append(c.findings, finding.Finding{
				Code: "ISM0025", Severity: finding.Error, Object: string(svc.Refs[0]),
				Message: fmt.Sprintf("%s port %d already belongs to %s; %s is not served there", address(prefix), p.Number, other.Refs[0], svc.Host),
				Remedy:  "give each its own address or port, or limit who sees them with exportTo",
			})
			return false
		}
	}
	for _, p := range svc.Ports {
		key := claim{prefix, p.Number}
		taken[key] = append(taken[key], svc)
	}
	return true
}

// seenTogether says whether some namespace may see both.
func seenTogether(a, b *model.Service) bool {
	if a.ExportTo == nil || b.ExportTo == nil {
		return (a.ExportTo == nil || len(a.ExportTo) > 0) && (b.ExportTo == nil || len(b.ExportTo) > 0)
	}
	return slices.ContainsFunc(a.ExportTo, func(ns string) bool { return slices.Contains(b.ExportTo, ns) })
}

func address(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
