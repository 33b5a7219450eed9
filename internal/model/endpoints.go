package model

import "net/netip"

// EndpointSet names the endpoints behind one host and port.
type EndpointSet struct {
	Host string
	Port uint16
	// Proxy whose own form of the set it is, since it serves some of the endpoints itself; empty for the form that all
	// share.
	Proxy string
}

// Shared is the form that all share.
func (s EndpointSet) Shared() EndpointSet { return EndpointSet{Host: s.Host, Port: s.Port} }

// Endpoint is one place where a port is served.
type Endpoint struct {
	Addr    netip.Addr
	Other   netip.Addr // the same place in the other IP version, if it has one; tried where Addr cannot be reached
	Host    string     // instead of Addr, for DNS services
	Port    uint16
	Healthy bool
	Weight  uint32
	By      WorkloadID // the registered workload that serves there, if one does
	// Destination that it belongs to, in the set of a route with several; see Route.Endpoints.
	Destination Destination
}

func (e Endpoint) named() bool { return e.Host != "" }

// Places are the endpoints of one who serves a port at these addresses. An IPv4 and an IPv6 address are one place, and
// the version that is written first is tried first: who is there in both is not called twice as often.
func Places(addrs []netip.Addr, port uint16) []Endpoint {
	var first, second []netip.Addr
	for _, a := range addrs {
		if a.BitLen() == addrs[0].BitLen() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var out []Endpoint
	for i := range max(len(first), len(second)) {
		e := Endpoint{Port: port}
		switch {
		case i >= len(first):
			e.Addr = second[i]
		case i < len(second):
			e.Addr, e.Other = first[i], second[i]
		default:
			e.Addr = first[i]
		}
		out = append(out, e)
	}
	return out
}
