package model

import (
	"net/netip"
	"strings"

	"isthmus.dev/isthmus/internal/spiffe"
)

// Proxy is one Envoy. It serves workloads or is a gateway.
type Proxy struct {
	Name      string
	Workloads []*Workload // sorted by namespace and name
	Sidecars  []*Workload // workloads of this node that have a proxy of their own; same order
	Gateway   *Gateway    // nil for nodes
	Builtin   string      // version of the built-in parts of Envoy's configuration that its agent has
}

// SidecarName returns the name of one workload's own proxy. Node names contain no slash.
func SidecarName(node string, id WorkloadID) string { return node + "/" + id.String() }

// NodeOfProxy returns the node that runs a proxy.
func NodeOfProxy(proxy string) string {
	node, _, _ := strings.Cut(proxy, "/")
	return node
}

// Gateway is a proxy at the edge of the mesh. It has boundaries, each with only the part of the mesh that concerns it.
// Federation is the only boundary today; ingress and egress will be further fields.
type Gateway struct {
	Identity spiffe.ID
	Inner    []netip.Addr
	Outer    []netip.Addr
	// MaxConnections limits the connections from clients that its Envoy accepts.
	MaxConnections uint32
	// Control and ControlAt are the control plane's identity and the addresses at which the gateway reaches it for
	// peers' control traffic. ControlAt may be empty: no address is known yet.
	Control   spiffe.ID
	ControlAt []netip.AddrPort
	// Federation is the boundary to other meshes; nil if there is none.
	Federation *Federation
}
