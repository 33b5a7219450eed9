package meshd

import (
	"fmt"
	"net"
	"net/netip"

	"isthmus.dev/isthmus/internal/config"
)

// peeringAddresses returns the addresses in the settings at which gateways reach this control plane, for use behind
// address translation. Without them, each gateway uses the address that its agent uses, with this port.
func peeringAddresses(cfg config.Control) (said []netip.AddrPort, port uint16, err error) {
	ap, err := addrPort(cfg.PeeringAddress)
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("peeringAddress: %w", err)
	case !ap.Addr().IsUnspecified():
		said = []netip.AddrPort{ap}
	case len(cfg.Names.IPs) > 0:
		said = []netip.AddrPort{netip.AddrPortFrom(cfg.Names.IPs[0], ap.Port())}
	}
	return said, ap.Port(), nil
}

func addrPort(s string) (netip.AddrPort, error) {
	if len(s) > 0 && s[0] == ':' {
		s = "0.0.0.0" + s
	}
	return netip.ParseAddrPort(s)
}

// agentAddresses returns what agents may dial: the configured names, or the listening address, or every address of this
// host.
func agentAddresses(cfg config.Control) []string {
	host, port, err := net.SplitHostPort(cfg.AgentAddress)
	if err != nil {
		return nil
	}
	var out []string
	for _, n := range cfg.Names.DNS {
		out = append(out, net.JoinHostPort(n, port))
	}
	for _, ip := range cfg.Names.IPs {
		out = append(out, net.JoinHostPort(ip.String(), port))
	}
	if ip, err := netip.ParseAddr(host); err == nil && !ip.IsUnspecified() {
		out = append(out, cfg.AgentAddress)
	}
	if len(out) > 0 {
		return out
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			out = append(out, net.JoinHostPort(n.IP.String(), port))
		}
	}
	return out[:min(len(out), 8)]
}
