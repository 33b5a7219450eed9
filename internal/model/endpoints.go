package model

import (
	"cmp"
	"net/netip"
)

// EndpointSet identifies the endpoints of one host and port, or a subset of them.
type EndpointSet struct {
	Host string
	Port uint16
	// Subset is the labels that select a subset, sorted: "tier=front,version=v1". It is empty for all endpoints.
	Subset string
	// Proxy is set for the form of the set that one proxy gets because it hosts some of the endpoints. It is empty for
	// the form that all other proxies share.
	Proxy string
}

// Shared returns the form that has no proxy of its own.
func (s EndpointSet) Shared() EndpointSet {
	s.Proxy = ""
	return s
}

// Compare orders sets by host, port, subset and proxy.
func (s EndpointSet) Compare(o EndpointSet) int {
	return cmp.Or(cmp.Compare(s.Host, o.Host), cmp.Compare(s.Port, o.Port), cmp.Compare(s.Subset, o.Subset),
		cmp.Compare(s.Proxy, o.Proxy))
}

// Endpoint is one address at which a port is served.
type Endpoint struct {
	Addr    netip.Addr
	Other   netip.Addr // the same server's address of the other IP version, if any; used when Addr is unreachable
	Host    string     // instead of Addr, for DNS services
	Port    uint16
	Healthy bool
	Weight  uint32
	By      WorkloadID // the registered workload behind it, if any
	// Group is set when the endpoint belongs to a destination that may have several groups; see Destination.Endpoints.
	Group Group
}

func (e Endpoint) named() bool { return e.Host != "" }

// EndpointsAt returns the endpoints of one server that listens on a port at these addresses. An IPv4 and an IPv6
// address are paired into one endpoint, so that a dual-stack server does not get twice the load. The version that is
// listed first is tried first.
func EndpointsAt(addrs []netip.Addr, port uint16) []Endpoint {
	return AppendEndpoints(nil, addrs, port)
}

// AppendEndpoints appends EndpointsAt to endpoints.
func AppendEndpoints(endpoints []Endpoint, addrs []netip.Addr, port uint16) []Endpoint {
	start := len(endpoints)
	for _, a := range addrs {
		if a.BitLen() == addrs[0].BitLen() {
			endpoints = append(endpoints, Endpoint{Addr: a, Port: port})
		}
	}
	unpaired := endpoints[start:]
	for _, a := range addrs {
		switch {
		case a.BitLen() == addrs[0].BitLen():
		case len(unpaired) > 0:
			unpaired[0].Other, unpaired = a, unpaired[1:]
		default:
			endpoints = append(endpoints, Endpoint{Addr: a, Port: port})
		}
	}
	return endpoints
}
