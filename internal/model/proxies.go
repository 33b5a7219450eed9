package model

import (
	"net/netip"
	"strings"

	"isthmus.dev/isthmus/internal/spiffe"
)

// Proxy is one Envoy: it serves workloads, or is a gateway.
type Proxy struct {
	Name      string
	Workloads []*Workload // sorted by namespace and name
	Sidecars  []*Workload // of this node, each with a proxy of its own; sorted likewise
	Gateway   *Gateway    // nil for nodes
}

// SidecarName names the proxy of one workload. No node has a slash in its name.
func SidecarName(node string, id WorkloadID) string { return node + "/" + id.String() }

// NodeOfProxy is the node of a proxy: its own, or that of the workload that it is for.
func NodeOfProxy(proxy string) string {
	node, _, _ := strings.Cut(proxy, "/")
	return node
}

// Gateway is a proxy at the edge of the mesh. What it does there are its boundaries, each with what concerns it and
// nothing else of the mesh. There is one sort, Federation; those to clients outside (ingress) and to the outside world
// (egress) will stand beside it.
type Gateway struct {
	Identity spiffe.ID
	Inner    []netip.Addr
	Outer    []netip.Addr
	// MaxConnections from clients that its Envoy holds.
	MaxConnections uint32
	// Control is the control plane: who it is, and where the gateway reaches it for what peers say. Nobody may know
	// where that is yet.
	Control   spiffe.ID
	ControlAt []netip.AddrPort
	// Federation is its boundary to other meshes; nil where it has none.
	Federation *Federation
}
