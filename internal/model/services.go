package model

import (
	"net/netip"
)

// ServiceID identifies a service. Name is the host for a ServiceEntry.
type ServiceID struct{ Namespace, Name string }

// Service can be called by name.
type Service struct {
	ID       ServiceID
	Host     string         // FQDN, lower case
	VIP      netip.Addr     // IPv4
	VIP6     netip.Addr     // IPv6, for workloads that have IPv6
	Prefixes []netip.Prefix // further addresses (ServiceEntry)
	External bool           // outside the mesh: no mutual TLS, no identity
	DNS      bool           // endpoints are host names, resolved by the proxy
	ExportTo []string       // namespaces that see it; nil means all
	Ports    []*Port
	Refs     []Ref
}

// Port of a service.
type Port struct {
	Number     uint16
	Protocol   Protocol
	Identities []string // SPIFFE IDs of the workloads that serve it, sorted
	MTLS       bool     // callers may use mutual TLS, or must
	// Workloads are the registered workloads that serve it, sorted.
	Workloads []WorkloadID
}
