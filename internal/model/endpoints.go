package model

import "net/netip"

// EndpointSet identifies the endpoints of one host and port.
type EndpointSet struct {
	Host string
	Port uint16
	// Proxy is set for the form of the set that one proxy gets because it hosts some of the endpoints. It is empty for
	// the form that all other proxies share.
	Proxy string
}

// Shared returns the form that has no proxy of its own.
func (s EndpointSet) Shared() EndpointSet { return EndpointSet{Host: s.Host, Port: s.Port} }

// Endpoint is one address at which a port is served.
type Endpoint struct {
	Addr    netip.Addr
	Other   netip.Addr // the same server's address of the other IP version, if any; used when Addr is unreachable
	Host    string     // instead of Addr, for DNS services
	Port    uint16
	Healthy bool
	Weight  uint32
	By      WorkloadID // the registered workload behind it, if any
	// Destination is set when the endpoint belongs to a route with several destinations; see Route.Endpoints.
	Destination Destination
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
