// Package reserved lists the addresses and ports that no service, endpoint or gateway may have, whoever configures or
// reports them. They differ by network namespace (loopback), reach nobody or everybody (unspecified, multicast), or
// belong to the mesh (virtual addresses, ports of Envoy and the agents). A proxy told to connect to one might call
// itself in a loop, or send a refused call out in plaintext.
package reserved

import (
	"fmt"
	"net/netip"

	"isthmus.dev/isthmus/internal/vip"
	"isthmus.dev/isthmus/internal/wellknown"
)

type block struct {
	prefix netip.Prefix
	what   string
}

// reserved4 are the reserved IPv4 blocks. Their IPv6 forms are reserved too.
var reserved4 = []block{
	{netip.MustParsePrefix("0.0.0.0/8"), "the unspecified address"},
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
	{vip.Range, "one of the mesh's virtual addresses"},
}

// reserved6 are the reserved IPv6 blocks.
var reserved6 = []block{
	{netip.MustParsePrefix("::/128"), "the unspecified address"},
	{netip.MustParsePrefix("::1/128"), "a loopback address"},
	{netip.MustParsePrefix("::/96"), "an IPv4 address in a form that nobody uses any more"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
	{vip.Range6, "one of the mesh's virtual addresses"},
}

// embedding are the IPv6 prefixes that are followed by an IPv4 address: IPv4-mapped (RFC 4291), IPv4-translated (RFC
// 2765), NAT64 (RFC 6052, RFC 8215) and 6to4 (RFC 3056).
var embedding = []netip.Prefix{
	netip.MustParsePrefix("::ffff:0:0/96"),
	netip.MustParsePrefix("::ffff:0:0:0/96"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/96"),
	netip.MustParsePrefix("2002::/16"),
}

var table = func() []block {
	all := append(append([]block{}, reserved4...), reserved6...)
	for _, b := range reserved4 {
		for _, c := range embedding {
			all = append(all, block{embed(c, b.prefix), b.what + " in an IPv6 form"})
		}
	}
	return all
}()

// embed returns the IPv6 prefix of an embedded IPv4 prefix.
func embed(carrier, p netip.Prefix) netip.Prefix {
	out, low := carrier.Addr().As16(), p.Addr().As4()
	copy(out[carrier.Bits()/8:], low[:])
	return netip.PrefixFrom(netip.AddrFrom16(out), carrier.Bits()+p.Bits())
}

// Address describes a reserved address, for example "a loopback address". It returns "" for other addresses.
func Address(a netip.Addr) string {
	if !a.IsValid() {
		return "no address"
	}
	return Range(netip.PrefixFrom(a.WithZone(""), a.BitLen()))
}

// Range describes the reserved block that overlaps a range, or returns "".
func Range(p netip.Prefix) string {
	if !p.IsValid() {
		return "no range"
	}
	for _, b := range table {
		if b.prefix.Overlaps(p) {
			return b.what
		}
	}
	return ""
}

// ports used by Envoy and agents beside a workload, by gateways and by control planes.
var ports = map[uint16]string{
	wellknown.OutboundPort:     "where Envoy takes what a workload calls",
	wellknown.InboundPort:      "where Envoy takes calls to a workload",
	wellknown.DNSPort:          "the agent's DNS",
	wellknown.ControlPort:      "the control plane's, for agents",
	wellknown.PeeringPort:      "the control plane's, for peers",
	wellknown.FederationPort:   "the gateways', for peers",
	wellknown.FederationEgress: "the gateways', for the mesh's own callers",
	wellknown.HealthPort:       "where agents and control planes tell their health",
	wellknown.MetricsPort:      "where agents tell their metrics",
}

// Port describes a port that no service may have. It returns "" for other ports.
func Port(n uint16) string {
	if whose := ports[n]; whose != "" {
		return fmt.Sprintf("a port of the mesh itself (%s)", whose)
	}
	return ""
}

// GatewayPort is like Port but allows the port that gateways serve.
func GatewayPort(n uint16) string {
	if n == wellknown.FederationPort {
		return ""
	}
	return Port(n)
}
