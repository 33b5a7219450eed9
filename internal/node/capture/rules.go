package capture

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/vip"
	"isthmus.dev/isthmus/internal/wellknown"
)

type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	policy   nftables.ChainPolicy
	device   string
	rules    []rule
}

// chains returns the whole table. The order of rules matters: the first that ends a packet's way wins.
//
// Envoy's own connections are not tracked: a connection of the workload to the same address from the same port, refused
// a moment ago, may still be recorded as redirected and would take Envoy's connection to Envoy itself.
func chains(r Rules) []chain {
	return []chain{
		{
			name: "own-out", kind: nftables.ChainTypeFilter, policy: nftables.ChainPolicyAccept,
			hook: nftables.ChainHookOutput, priority: nftables.ChainPriorityRaw,
			rules: append(r.leaveOpen(true, notrack),
				when(tcp(), markIs(wellknown.InsideMark), r.envoys(), notrack()),
				when(out("lo"), accept()), // a call to itself must be redirected and so be tracked
				when(tcp(), markIs(wellknown.SocketMark), r.envoys(), notrack())),
		},
		{
			name: "own-in", kind: nftables.ChainTypeFilter, policy: nftables.ChainPolicyAccept,
			hook: nftables.ChainHookPrerouting, priority: nftables.ChainPriorityRaw,
			rules: append(r.leaveOpen(false, notrack), when(r.toEnvoys(), notrack())),
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

// linkLocal addresses are valid on one link only, so no answer from the loopback would reach the caller. Such a call is
// not redirected but refused by guardOut, with a reset since an ICMPv6 error would not reach the caller either.
var linkLocal = netip.MustParsePrefix("fe80::/10")

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func redirectOut(r Rules) []rule {
	var rules []rule
	for _, lo := range loopback {
		rules = append(rules,
			when(r.envoys(), daddr(lo), accept()),
			when(udp(), dport(53), daddr(lo), redirect(r.DNSPort)),
			when(tcp(), dport(53), daddr(lo), redirect(r.DNSPort)))
	}
	rules = append(rules,
		when(markIs(wellknown.SocketMark), r.envoys(), out("lo"), tcp(), redirect(wellknown.InboundPort)),
		when(r.envoys(), accept()),
		when(out("lo"), accept()),
		when(daddr(linkLocal), accept()),
		when(udp(), dport(53), redirect(r.DNSPort)),
		when(tcp(), dport(53), redirect(r.DNSPort)))
	rules = append(rules, excludedOut(r)...)
	return append(rules, when(tcp(), redirect(wellknown.OutboundPort)))
}

func redirectIn(r Rules) []rule {
	rules := []rule{when(in("lo"), accept())}
	for _, p := range r.ExcludeInboundPorts {
		rules = append(rules, when(tcp(), dport(p), accept()))
	}
	return append(rules, when(tcp(), redirect(wellknown.InboundPort)))
}

// forbiddenToEnvoy refuses what Envoy must never call, whatever a name resolves to: virtual addresses of the mesh,
// where a refused call would leave in plaintext, and its own outbound port, where it would call itself endlessly. Whose
// socket it is comes last: of what is looked at in each packet it costs most.
func (r Rules) forbiddenToEnvoy() []rule {
	return []rule{
		when(tcp(), daddr(vip.Range), r.envoys(), reset()),
		when(tcp(), daddr(vip.Range6), r.envoys(), reset()),
		when(tcp(), dport(wellknown.OutboundPort), out("lo"), r.envoys(), reset()),
	}
}

// guardOut refuses what redirectOut could not redirect. It knows three senders: Envoy, whose TCP passes; programs,
// which reach this namespace and the exclusions; and the kernel, which may send what TCP and IP need. A program cannot
// choose what the kernel sends, except that a foreign source address could make the kernel answer there with the
// program's data, so such packets are dropped.
func guardOut(r Rules) []rule {
	rules := append(r.forbiddenToEnvoy(), when(tcp(), r.envoys(), accept()))
	rules = append(rules, r.leaveOpen(true, accept)...)
	rules = append(rules, when(program(), foreignSource(), drop()))
	for _, lo := range loopback {
		rules = append(rules, when(redirected(), daddr(lo), accept()))
	}
	// these are reached by redirection only
	for _, p := range []uint16{wellknown.OutboundPort, wellknown.InboundPort, r.DNSPort} {
		rules = append(rules, when(out("lo"), tcp(), dport(p), reset()))
	}
	rules = append(rules, when(out("lo"), udp(), dport(r.DNSPort), reject()), when(out("lo"), accept()))
	rules = append(rules, excludedOut(r)...)
	for _, p := range r.ExcludeInboundPorts {
		rules = append(rules, when(tcp(), sport(p), replying(), accept()), when(udp(), sport(p), replying(), accept()))
	}
	rules = append(rules,
		when(tcp(), program(), daddr(linkLocal), reset()),
		when(program(), reject()),
		when(tcp(), redirected(), accept()),
		when(tcp(), replying(), accept()),
		// of Envoy's connections
		when(tcp(), eitherMark(&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}), isReset(), accept()))
	rules = append(rules, icmp(icmpOut, icmpv6Out)...)
	return append(rules, when(invalid(), drop()), reject())
}

// guardIn refuses what reached the namespace without passing Envoy, including what a program accepted in Envoy's place.
func guardIn(r Rules) []rule {
	rules := append([]rule{when(in("lo"), accept())}, r.leaveOpen(false, accept)...)
	rules = append(rules,
		when(r.toEnvoys(), accept()),
		when(tcp(), redirected(), r.envoys(), accept()),
		when(tcp(), redirected(), fullSocket(), reset()),
		when(tcp(), redirected(), accept()), // connections in handshake or TIME_WAIT, which have no full socket
		when(replying(), accept()))
	rules = append(rules, icmp(icmpIn, icmpv6In)...)
	for _, p := range r.ExcludeInboundPorts {
		rules = append(rules, when(tcp(), dport(p), accept()), when(udp(), dport(p), accept()))
	}
	return append(rules, when(invalid(), drop()), when(tcp(), reset()), reject())
}

func excludedOut(r Rules) []rule {
	var rules []rule
	for _, p := range r.ExcludeOutboundPorts {
		rules = append(rules, when(tcp(), dport(p), accept()), when(udp(), dport(p), accept()))
	}
	for _, c := range r.ExcludeOutboundCIDRs {
		rules = append(rules, when(daddr(c), accept()))
	}
	return rules
}

// The ICMP types that IP needs: errors, and for IPv6 neighbour and router discovery and multicast listener reports. Not
// echo, which carries arbitrary data, nor redirects and router advertisements, which could mislead others.
var (
	icmpOut   = []byte{3, 11, 12}
	icmpIn    = []byte{3, 11, 12}
	icmpv6Out = []byte{1, 2, 3, 4, 131, 132, 133, 135, 136, 143}
	icmpv6In  = []byte{1, 2, 3, 4, 130, 134, 135, 136}
)

func icmp(four, six []byte) []rule {
	var rules []rule
	for _, t := range four {
		rules = append(rules, when(proto(unix.IPPROTO_ICMP), icmpType(t), accept()))
	}
	for _, t := range six {
		rules = append(rules, when(proto(unix.IPPROTO_ICMPV6), icmpType(t), accept()))
	}
	return rules
}

// frames returns the chain of one device. What leaves by it either passed the chains above and so has a route, or is a
// frame that a program wrote past them. What the kernel sends without a route, such as ARP, passes.
func frames(name, device string) chain {
	return chain{
		name: name, kind: nftables.ChainTypeFilter, policy: nftables.ChainPolicyAccept, device: device,
		hook: nftables.ChainHookEgress, priority: nftables.ChainPriorityFilter,
		rules: []rule{when(routed(), accept()), when(hasFile(), drop())},
	}
}
