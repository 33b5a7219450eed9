package view

import (
	"maps"
	"reflect"
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// Equal says whether two views lead to the same configuration. It costs far less than making it, and is what lets a change
// cost only those proxies that it concerns. Endpoints do not count: they travel by themselves.
func Equal(a, b *View) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.TrustDomain == b.TrustDomain && a.Domain == b.Domain && a.AllowAny == b.AllowAny && a.CertificateTTL == b.CertificateTTL && a.HandOver == b.HandOver &&
		slices.Equal(a.Gateways.IDs, b.Gateways.IDs) && slices.Equal(a.Sets, b.Sets) &&
		maps.EqualFunc(a.Roots, b.Roots, func(x, y []byte) bool { return string(x) == string(y) }) &&
		maps.EqualFunc(a.Near, b.Near, slices.Equal[[]model.WorkloadID]) &&
		maps.EqualFunc(a.DNSEndpoints, b.DNSEndpoints, slices.Equal[[]model.Endpoint]) &&
		slices.EqualFunc(a.Workloads, b.Workloads, equalWorkloads) && equalGateways(a.Gateway, b.Gateway)
}

func equalWorkloads(a, b *model.Workload) bool {
	return a.ID == b.ID && a.Identity == b.Identity && a.Netns == b.Netns && a.Mode == b.Mode && slices.Equal(a.Addrs, b.Addrs) &&
		slices.Equal(a.Refs, b.Refs) && slices.EqualFunc(a.Inbound, b.Inbound, equalInbound) && slices.EqualFunc(a.Outbound, b.Outbound, equalOutbound)
}

func equalInbound(a, b model.Inbound) bool {
	return a.Port == b.Port && a.Protocol == b.Protocol && a.Mode == b.Mode && slices.Equal(a.Refs, b.Refs) &&
		a.Policies.DefaultAllow == b.Policies.DefaultAllow &&
		slices.EqualFunc(a.Policies.Deny, b.Policies.Deny, equalPolicies) && slices.EqualFunc(a.Policies.Allow, b.Policies.Allow, equalPolicies)
}

func equalPolicies(a, b *model.Policy) bool { return a == b || reflect.DeepEqual(a, b) }

func equalOutbound(a, b model.Outbound) bool {
	return equalServices(a.Service, b.Service) && equalPorts(a.Port, b.Port) && slices.Equal(a.By, b.By) &&
		(a.Import == b.Import || reflect.DeepEqual(a.Import, b.Import))
}

// equalServices compares a service apart from its ports.
func equalServices(a, b *model.Service) bool {
	return a == b || a.ID == b.ID && a.Host == b.Host && a.VIP == b.VIP && a.VIP6 == b.VIP6 && a.External == b.External && a.DNS == b.DNS &&
		slices.Equal(a.Prefixes, b.Prefixes) && slices.Equal(a.Refs, b.Refs)
}

// equalPorts compares ports apart from their callers, who are somebody else's business.
func equalPorts(a, b *model.Port) bool {
	return a == b || a.Number == b.Number && a.Protocol == b.Protocol && a.MTLS == b.MTLS && slices.Equal(a.Identities, b.Identities)
}

// equalGateways compares what crosses; gateways are few.
func equalGateways(a, b *GatewayView) bool { return reflect.DeepEqual(a, b) }
