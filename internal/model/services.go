package model

import (
	"net/netip"
)

// ServiceID names a service. For a ServiceEntry, Name is the host.
type ServiceID struct{ Namespace, Name string }

// Service is something that can be called by name.
type Service struct {
	ID       ServiceID
	Host     string         // FQDN, lower case
	VIP      netip.Addr     // IPv4
	VIP6     netip.Addr     // IPv6, for workloads that have it
	Prefixes []netip.Prefix // further addresses (ServiceEntry)
	External bool           // outside the mesh: no mutual TLS, no identity
	DNS      bool           // endpoints are host names, resolved by the proxy
	ExportTo []string       // namespaces that may see it; nil means all
	Ports    []*Port
	Refs     []Ref
}

// Port of a service.
type Port struct {
	Number     uint16
	Protocol   Protocol
	Identities []string // SPIFFE IDs of those who serve it, sorted
	MTLS       bool     // callers must, or may, use mutual TLS
	// Workloads are the registered ones that serve it, sorted.
	Workloads []WorkloadID
}
