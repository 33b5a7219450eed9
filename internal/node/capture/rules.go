package capture

import (
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/agentapi"
)

type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	policy   nftables.ChainPolicy
	rules    []rule
}

// chains is the whole table. The order of rules matters: the first that ends a packet's way wins.
//
// Envoy's own connections are not tracked: one of the workload's to the same address, refused a moment ago from the same
// port, is remembered as redirected, and would take Envoy's along to Envoy itself.
func chains(r Rules) []chain {
	return []chain{
		{
			name: "own-out", kind: nftables.ChainTypeFilter, policy: nftables.ChainPolicyAccept,
			hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityRaw,
			rules: []rule{
				when(proto(unix.IPPROTO_TCP), mark(agentapi.InsideMark), untracked()),
				when(out("lo"), accept()), // a call to itself must be redirected, and so be tracked
				when(proto(unix.IPPROTO_TCP), mark(agentapi.SocketMark), untracked()),
			},
		},
		{
			name: "own-in", kind: nftables.ChainTypeFilter, policy: nftables.ChainPolicyAccept,
			hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityRaw,
			rules: []rule{when(toOurs(), untracked())},
		},
		{
			name: "redirect-out", kind: nftables.ChainTypeNAT, policy: nftables.ChainPolicyAccept,
			hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityNATDest,
			rules: redirectOut(r),
		},
		{
			name: "redirect-in", kind: nftables.ChainTypeNAT, policy: nftables.ChainPolicyAccept,
			hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityNATDest,
			rules: redirectIn(r),
		},
		{
			name: "guard-out", kind: nftables.ChainTypeFilter, policy: nftables.ChainPolicyDrop,
			hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityFilter,
			rules: guardOut(r),
		},
		{
			name: "guard-in", kind: nftables.ChainTypeFilter, policy: nftables.ChainPolicyDrop,
			hook: nftables.ChainHookInput, priority: nftables.ChainPriorityFilter,
			rules: guardIn(r),
		},
	}
}

// linkLocal addresses mean something on one link only, so that no answer from the loopback reaches who called one: such a call
// is not redirected, and guardOut refuses it: by a reset, since an ICMPv6 error would not find the caller either.
var linkLocal = netip.MustParsePrefix("fe80::/10")

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

func redirectOut(r Rules) []rule {
	rules := []rule{
		when(mark(agentapi.SocketMark), daddr(loopback4), accept()),
		when(mark(agentapi.SocketMark), daddr(loopback6), accept()),
		when(mark(agentapi.SocketMark), out("lo"), proto(unix.IPPROTO_TCP), redirect(agentapi.InboundPort)),
		when(ours(), accept()),
		when(daddr(linkLocal), accept()),
		when(proto(unix.IPPROTO_UDP), dport(53), redirect(agentapi.DNSPort)),
		when(proto(unix.IPPROTO_TCP), dport(53), redirect(agentapi.DNSPort)),
		when(out("lo"), accept()),
	}
	rules = append(rules, excludedOut(r)...)
	return append(rules, when(proto(unix.IPPROTO_TCP), redirect(agentapi.OutboundPort)))
}

func redirectIn(r Rules) []rule {
	rules := []rule{when(in("lo"), accept())}
	for _, p := range r.ExcludeInboundPorts {
		rules = append(rules, when(proto(unix.IPPROTO_TCP), dport(p), accept()))
	}
	return append(rules, when(proto(unix.IPPROTO_TCP), redirect(agentapi.InboundPort)))
}

// guardOut refuses what redirectOut could not take: other protocols, and packets that connection tracking does not know.
func guardOut(r Rules) []rule {
	rules := []rule{
		when(ours(), accept()),
		when(out("lo"), accept()),
		when(redirected(), accept()),
		when(replying(), accept()),
		when(proto(unix.IPPROTO_ICMP), accept()),
		when(proto(unix.IPPROTO_ICMPV6), accept()),
	}
	rules = append(rules, excludedOut(r)...)
	return append(rules, when(invalid(), drop()), when(proto(unix.IPPROTO_TCP), daddr(linkLocal), reset()), reject())
}

// guardIn refuses what reached the namespace without passing Envoy.
func guardIn(r Rules) []rule {
	rules := []rule{
		when(in("lo"), accept()),
		when(toOurs(), accept()),
		when(redirected(), accept()),
		when(replying(), accept()),
		when(proto(unix.IPPROTO_ICMP), accept()),
		when(proto(unix.IPPROTO_ICMPV6), accept()),
	}
	for _, p := range r.ExcludeInboundPorts {
		rules = append(rules, when(proto(unix.IPPROTO_TCP), dport(p), accept()), when(proto(unix.IPPROTO_UDP), dport(p), accept()))
	}
	return append(rules, when(invalid(), drop()), reject())
}

func excludedOut(r Rules) []rule {
	var rules []rule
	for _, p := range r.ExcludeOutboundPorts {
		rules = append(rules, when(proto(unix.IPPROTO_TCP), dport(p), accept()), when(proto(unix.IPPROTO_UDP), dport(p), accept()))
	}
	for _, c := range r.ExcludeOutboundCIDRs {
		rules = append(rules, when(daddr(c), accept()))
	}
	return rules
}
