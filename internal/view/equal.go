package view

import (
	"maps"
	"reflect"
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// Equal reports whether two views lead to the same Envoy configuration. It is far cheaper than building that, so a
// change costs only the proxies that it concerns. Endpoints are not compared; they are sent separately.
func Equal(a, b *View) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Builtin == b.Builtin &&
		a.TrustDomain == b.TrustDomain && a.Domain == b.Domain && a.AllowAny == b.AllowAny &&
		a.CertificateTTL == b.CertificateTTL && a.HandOver == b.HandOver &&
		slices.Equal(a.Gateways, b.Gateways) && slices.Equal(a.Sets, b.Sets) &&
		maps.EqualFunc(a.Roots, b.Roots, func(x, y []byte) bool { return string(x) == string(y) }) &&
		maps.EqualFunc(a.Local, b.Local, slices.Equal[[]model.WorkloadID]) &&
		maps.EqualFunc(a.Resolved, b.Resolved, slices.Equal[[]model.Endpoint]) &&
		slices.EqualFunc(a.Workloads, b.Workloads, equalWorkloads) && equalGateways(a.Gateway, b.Gateway)
}

func equalWorkloads(a, b *model.Workload) bool {
	return a.ID == b.ID && a.Identity == b.Identity && a.Netns == b.Netns && a.Mode == b.Mode &&
		slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Refs, b.Refs) &&
		slices.EqualFunc(a.Inbound, b.Inbound, equalInbound) && slices.EqualFunc(a.Outbound, b.Outbound, equalOutbound)
}

func equalInbound(a, b model.Inbound) bool {
	return a.Port == b.Port && a.Protocol == b.Protocol && a.Mode == b.Mode && slices.Equal(a.Refs, b.Refs) &&
		slices.Equal(a.Hosts, b.Hosts) && a.Policies.DefaultAllow == b.Policies.DefaultAllow &&
		slices.EqualFunc(a.Policies.Deny, b.Policies.Deny, equalPolicies) &&
		slices.EqualFunc(a.Policies.Allow, b.Policies.Allow, equalPolicies)
}

func equalPolicies(a, b *model.Policy) bool { return a == b || reflect.DeepEqual(a, b) }

func equalOutbound(a, b model.Outbound) bool {
	return equalServices(a.Service, b.Service) && equalPorts(a.Port, b.Port) && slices.Equal(a.By, b.By) &&
		slices.EqualFunc(a.Routes, b.Routes, equalRoutes)
}

func equalRoutes(a, b *model.Route) bool {
	return a == b || reflect.DeepEqual(a.Match, b.Match) && equalActions(a.Actions, b.Actions) &&
		slices.EqualFunc(a.To, b.To, equalDestinations)
}

func equalActions(a, b *model.Actions) bool {
	if a == nil || b == nil {
		return a == b
	}
	without := func(a model.Actions) model.Actions {
		a.Mirrors = nil
		return a
	}
	return reflect.DeepEqual(without(*a), without(*b)) &&
		slices.EqualFunc(a.Mirrors, b.Mirrors, func(a, b model.Mirror) bool {
			return a.PerMillion == b.PerMillion && equalDestinations(a.To, b.To)
		})
}

func equalDestinations(a, b model.Destination) bool {
	return a.Weight == b.Weight && a.Set == b.Set && a.Resolved == b.Resolved && a.Changing == b.Changing &&
		slices.Equal(a.Groups, b.Groups) && slices.Equal(a.Absent, b.Absent) &&
		equalServices(a.Service, b.Service) && equalPorts(a.Port, b.Port)
}

// equalServices compares services without their ports.
func equalServices(a, b *model.Service) bool {
	return a == b ||
		a.ID == b.ID && a.Host == b.Host && a.VIP == b.VIP && a.VIP6 == b.VIP6 && a.External == b.External &&
			a.DNS == b.DNS && slices.Equal(a.Prefixes, b.Prefixes) && slices.Equal(a.Refs, b.Refs)
}

// equalPorts compares ports without their callers, which only other proxies need.
func equalPorts(a, b *model.Port) bool {
	return a == b || a.Number == b.Number && a.Protocol == b.Protocol && a.MTLS == b.MTLS &&
		slices.Equal(a.Identities, b.Identities)
}

func equalGateways(a, b *model.Gateway) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Identity == b.Identity && a.MaxConnections == b.MaxConnections && a.Control == b.Control &&
		slices.Equal(a.Inner, b.Inner) && slices.Equal(a.Outer, b.Outer) && slices.Equal(a.ControlAt, b.ControlAt) &&
		equalFederations(a.Federation, b.Federation)
}

// equalFederations need not be fast: gateways are few.
func equalFederations(a, b *model.Federation) bool {
	if a == nil || b == nil {
		return a == b
	}
	return reflect.DeepEqual(a.Peers, b.Peers) && slices.EqualFunc(a.Exports, b.Exports, equalExports) &&
		reflect.DeepEqual(a.Imports, b.Imports) && slices.Equal(a.Invites, b.Invites) &&
		slices.Equal(a.Bootstraps, b.Bootstraps)
}

func equalExports(a, b *model.Export) bool {
	return a.Name == b.Name && a.Alias == b.Alias && a.SNI == b.SNI && a.Ref == b.Ref &&
		reflect.DeepEqual(a.Peer, b.Peer) &&
		equalServices(a.Service, b.Service) && equalPorts(a.Port, b.Port) &&
		reflect.DeepEqual(a.Rules, b.Rules)
}
