// Package model is the mesh as it is meant: identities, services, who may call whom, and what crosses to peers.
// It knows neither Kubernetes nor Envoy. A Mesh and all that hangs from it are read-only once compiled.
package model

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
)

// Mesh is one mesh at one moment.
type Mesh struct {
	Name           string
	TrustDomain    spiffe.TrustDomain
	Domain         string // DNS suffix, "cluster.local"
	RootNamespace  string
	CertificateTTL time.Duration
	AllowAny       bool // unlisted addresses may be called
	HandOver       bool // calls between two workloads of one proxy stay inside it
	Namespaces     []string

	Services  map[ServiceID]*Service
	Workloads map[WorkloadID]*Workload
	Proxies   map[string]*Proxy // by node name
	// Endpoints by set. They change most often, alone, and travel by themselves.
	Endpoints map[EndpointSet][]Endpoint

	Peers   map[string]*Peer // by MeshPeer name, only those that may be used now
	Exports []*Export
	Imports []*Import
	Control spiffe.ID // of the control plane
	// Invites and Bootstraps are peerings being made.
	Invites    []Invite
	Bootstraps []Bootstrap

	// Roots by trust domain, PEM: the mesh's own and those of its live peers.
	Roots map[string][]byte
}

// ServiceID names a service. For a ServiceEntry, Name is the host.
type ServiceID struct{ Namespace, Name string }

// WorkloadID names a registered workload.
type WorkloadID struct{ Namespace, Name string }

// String is namespace/name.
func (w WorkloadID) String() string { return w.Namespace + "/" + w.Name }

// EndpointSet names the endpoints behind one host and port.
type EndpointSet struct {
	Host  string
	Port  uint16
	Proxy string // whose own form of the set it is: it serves some of the endpoints itself; empty for the form that all share
}

// Shared is the form that all share.
func (s EndpointSet) Shared() EndpointSet { return EndpointSet{Host: s.Host, Port: s.Port} }

// MTLSMode of a listening port. The zero value is the strict one.
type MTLSMode int

// The modes of PeerAuthentication.
const (
	Strict MTLSMode = iota
	Permissive
	Disable
)

func (m MTLSMode) String() string { return [...]string{"STRICT", "PERMISSIVE", "DISABLE"}[m] }

// Ref is the configuration object that something comes from: "Kind namespace/name (file:line)".
type Ref string

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
	Callers    []Caller // identities of this mesh that may call, sorted by ID
}

// Caller may call a port.
type Caller struct {
	ID string // SPIFFE ID
	By []Ref  // what allows it
}

// Endpoint is one place where a port is served.
type Endpoint struct {
	Addr    netip.Addr
	Other   netip.Addr // the same place in the other IP version, if it has one; tried where Addr cannot be reached
	Host    string     // instead of Addr, for DNS services
	Port    uint16
	Healthy bool
	Weight  uint32
	By      WorkloadID   // the registered workload that serves there, if one does
	Source  ImportSource // of an import
}

// Places are the endpoints of one who serves a port at these addresses. An IPv4 and an IPv6 address are one place, and the version that is
// written first is tried first: who is there in both is not called twice as often.
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

// Proxy is one Envoy: it serves workloads, or is a gateway.
type Proxy struct {
	Name      string
	Workloads []*Workload // sorted by namespace and name
	Sidecars  []*Workload // of this node, each with a proxy of its own; sorted likewise
	Gateway   *Gateway    // nil for nodes
}

// Gateway is what a gateway proxy needs to know of itself.
type Gateway struct {
	Identity spiffe.ID
	Inner    []netip.Addr
	Outer    []netip.Addr
	// MaxConnections from clients that its Envoy holds.
	MaxConnections uint32
	// Control is where it reaches the control plane for what peers say; empty while that is not known.
	Control []netip.AddrPort
}

// Workload is one registered workload.
type Workload struct {
	ID       WorkloadID
	Node     string
	Identity spiffe.ID
	Netns    string
	Sidecar  bool // it has a proxy of its own
	Addrs    []netip.Addr
	Mode     MTLSMode // for ports that no service names
	Inbound  []Inbound
	Outbound []Outbound
	Refs     []Ref // of its mTLS mode
}

// Speaks says whether the workload has an address of a's IP version, and so is served in it.
func (w *Workload) Speaks(a netip.Addr) bool {
	return slices.ContainsFunc(w.Addrs, func(own netip.Addr) bool { return own.BitLen() == a.BitLen() })
}

// Proxy is the name of the proxy that serves the workload: its node's, or its own.
func (w *Workload) Proxy() string {
	if w.Sidecar {
		return SidecarName(w.Node, w.ID)
	}
	return w.Node
}

// SidecarName names the proxy of one workload. No node has a slash in its name.
func SidecarName(node string, id WorkloadID) string { return node + "/" + id.String() }

// Inbound is one port a workload listens on.
type Inbound struct {
	Port     uint16
	Protocol Protocol
	Mode     MTLSMode
	Hosts    []string // names by which callers may address it, without port; sorted
	Policies Policies
	Refs     []Ref
}

// Policies that apply to one port.
type Policies struct {
	Deny         []*Policy
	Allow        []*Policy
	DefaultAllow bool // where no Allow policy applies
}

// Outbound is one destination that a workload may call.
type Outbound struct {
	Service *Service
	Port    *Port
	Import  *Import // nil for a service of this mesh
	By      []Ref
}

// Set is the shared form of the destination's endpoint set.
func (o Outbound) Set() EndpointSet { return EndpointSet{Host: o.Service.Host, Port: o.Port.Number} }

// HostNames are the names by which a request may address a service: its host, and for a service of the mesh the shorter forms.
func HostNames(svc *Service, domain string) []string {
	short, ok := strings.CutSuffix(svc.Host, ".svc."+domain)
	if !ok {
		return []string{svc.Host}
	}
	return []string{svc.Host, short, short + ".svc", strings.TrimSuffix(short, "."+svc.ID.Namespace)}
}
