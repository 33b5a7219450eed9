package model

import (
	"cmp"
	"net/netip"
	"slices"

	"isthmus.dev/isthmus/internal/spiffe"
)

// WorkloadID names a registered workload.
type WorkloadID struct{ Namespace, Name string }

// String returns "namespace/name".
func (w WorkloadID) String() string { return w.Namespace + "/" + w.Name }

// Compare orders workloads by namespace and name.
func (w WorkloadID) Compare(o WorkloadID) int {
	return cmp.Or(cmp.Compare(w.Namespace, o.Namespace), cmp.Compare(w.Name, o.Name))
}

// Workload is one registered workload.
type Workload struct {
	ID       WorkloadID
	Node     string
	Identity spiffe.ID
	Netns    string
	Sidecar  bool // has its own proxy
	Addrs    []netip.Addr
	Mode     MTLSMode // for ports that belong to no service
	Inbound  []Inbound
	Outbound []Outbound
	Refs     []Ref // where Mode comes from
}

// HasFamilyOf reports whether the workload has an address of a's IP version.
func (w *Workload) HasFamilyOf(a netip.Addr) bool {
	return slices.ContainsFunc(w.Addrs, func(own netip.Addr) bool { return own.BitLen() == a.BitLen() })
}

// Proxy returns the name of the proxy that serves the workload: its node's or its own.
func (w *Workload) Proxy() string {
	if w.Sidecar {
		return SidecarName(w.Node, w.ID)
	}
	return w.Node
}

// Inbound is one port on which a workload listens.
type Inbound struct {
	Port     uint16
	Protocol Protocol
	Mode     MTLSMode
	Hosts    []string // names by which callers may address the port, without the port number; sorted
	Policies Policies
	Refs     []Ref
}

// MTLSMode of a listening port. The zero value is Strict.
type MTLSMode int

// The modes of PeerAuthentication.
const (
	Strict MTLSMode = iota
	Permissive
	Disable
)

func (m MTLSMode) String() string { return [...]string{"STRICT", "PERMISSIVE", "DISABLE"}[m] }
