// Package reserved is the table of addresses and ports that nobody may name: not as a service, not as an endpoint, not
// as a gateway, whoever writes or reports it. They mean something else in each network namespace (loopback), reach
// nobody or everybody (unspecified, multicast), or are the mesh's own (virtual addresses, the ports of Envoy and of the
// agents). A proxy that is told to connect there may call itself without end, or send a refused call out in plaintext.
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

// four are the reserved IPv4 addresses. Each is reserved in all of its IPv6 forms too.
var four = []block{
	{netip.MustParsePrefix("0.0.0.0/8"), "the unspecified address"},
	{netip.MustParsePrefix("127.0.0.0/8"), "a loopback address"},
	{netip.MustParsePrefix("169.254.0.0/16"), "a link-local address"},
	{netip.MustParsePrefix("224.0.0.0/4"), "a multicast address"},
	{netip.MustParsePrefix("255.255.255.255/32"), "the broadcast address"},
	{vip.Range, "one of the mesh's virtual addresses"},
}

// six are the reserved IPv6 addresses.
var six = []block{
	{netip.MustParsePrefix("::/128"), "the unspecified address"},
	{netip.MustParsePrefix("::1/128"), "a loopback address"},
	{netip.MustParsePrefix("::/96"), "an IPv4 address in a form that nobody uses any more"},
	{netip.MustParsePrefix("fe80::/10"), "a link-local address"},
	{netip.MustParsePrefix("ff00::/8"), "a multicast address"},
	{vip.Range6, "one of the mesh's virtual addresses"},
}

// carriers are the IPv6 prefixes that hold an IPv4 address right behind them: IPv4-mapped (RFC 4291), IPv4-translated
// (RFC 2765), NAT64 (RFC 6052, RFC 8215) and 6to4 (RFC 3056).
var carriers = []netip.Prefix{
	netip.MustParsePrefix("::ffff:0:0/96"),
	netip.MustParsePrefix("::ffff:0:0:0/96"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/96"),
	netip.MustParsePrefix("2002::/16"),
}

var table = func() []block {
	all := append(append([]block{}, four...), six...)
	for _, b := range four {
		for _, c := range carriers {
			all = append(all, block{carried(c, b.prefix), b.what + " in an IPv6 form"})
		}
	}
	return all
}()

// carried is an IPv4 prefix inside an IPv6 one.
func carried(carrier, p netip.Prefix) netip.Prefix {
	out, low := carrier.Addr().As16(), p.Addr().As4()
	copy(out[carrier.Bits()/8:], low[:])
	return netip.PrefixFrom(netip.AddrFrom16(out), carrier.Bits()+p.Bits())
}

// Address says what an address is that nobody may name, for example "a loopback address"; nothing for any other.
func Address(a netip.Addr) string {
	if !a.IsValid() {
		return "no address"
	}
	return Range(netip.PrefixFrom(a.WithZone(""), a.BitLen()))
}

// Range says which reserved addresses lie in a range, or hold it; nothing where there are none.
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

// ports are the mesh's own: of Envoy and the agent beside a workload, of gateways and of control planes.
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

// Port says what a port is that no service may have; nothing for any other.
func Port(n uint16) string {
	if whose := ports[n]; whose != "" {
		return fmt.Sprintf("a port of the mesh itself (%s)", whose)
	}
	return ""
}

// GatewayPort is Port for the address of a gateway, which may have the port made for that.
func GatewayPort(n uint16) string {
	if n == wellknown.FederationPort {
		return ""
	}
	return Port(n)
}
