// Package snapshot is everything that the control plane knows at one moment. A Snapshot is immutable and is the only
// input of the spine. Private keys and other secrets never enter it.
package snapshot

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
)

// Snapshot is one state of the world. Nothing reachable from it is modified after it is made.
type Snapshot struct {
	// Time is when the snapshot was made. The pure layers use it as the current time.
	Time time.Time
	// Config is the configuration that administrators wrote.
	Config *Config
	// Registry is what node agents registered.
	Registry *Registry
	// Peers is the state of peer meshes beyond their MeshPeer objects, by MeshPeer name.
	Peers map[string]PeerState
	// Invites are open invitations. Bootstraps are accepted invitations in progress.
	Invites    []Invite
	Bootstraps []Bootstrap
	// PeeringAddresses are where this mesh's gateways reach its control plane for peers' control traffic, if set in the
	// settings.
	PeeringAddresses []netip.AddrPort
	// PeeringPort is the port at Node.Reached to use instead when the settings name no address. Use ControlOf.
	PeeringPort uint16
	// SilentGateways are this mesh's gateways that do not answer or whose agent is disconnected. Sorted by name.
	SilentGateways []string
	// SilentNodes are nodes unheard of for so long that other endpoints are preferred. Sorted by name.
	SilentNodes []SilentNode
	// Reports are the faults that node agents last reported. Sorted by node; a node without faults has no report.
	Reports []Report
	// Contained are the proxies that reject the current configuration. Sorted by name.
	Contained []Contained
	// Roots are the PEM root certificates of this mesh's own trust domain.
	Roots []byte
	// VIPs are the virtual IPv4 addresses by service host name. vip.Six derives the IPv6 address.
	VIPs map[string]netip.Addr
}

// SilentNode is a node whose agent is disconnected.
type SilentNode struct {
	Name  string
	Since time.Time
}

// Config is the whole configuration as it was read.
type Config struct {
	// Objects are in effect. There is at most one Mesh.
	Objects *Objects
	// Closed are objects that are written but not in effect, sorted by key. Objects does not contain them.
	Closed []Closed
	// Findings of reading: what could not be read, and what stays in effect instead.
	Findings []finding.Finding
}

// Mesh returns the Mesh object, or nil if there is none yet.
func (c *Config) Mesh() *v1alpha1.Mesh {
	if all := Of[*v1alpha1.Mesh](c); len(all) > 0 {
		return all[0]
	}
	return nil
}

// Origin returns the origin of an object, or the zero Origin if there is none.
func (c *Config) Origin(k Key) Origin {
	if c == nil {
		return Origin{}
	}
	if o := c.Objects.Get(k); o != nil {
		return o.Origin
	}
	return Origin{}
}

// Report merges and sorts findings for display. It adds the file and line of an object that is in effect, unless the
// finding has its own.
func (c *Config) Report(findings ...[]finding.Finding) []finding.Finding {
	out := slices.Concat(findings...)
	for i, f := range out {
		if f.File != "" || f.Line > 0 {
			continue
		}
		o := c.Origin(f.Object)
		out[i] = f.At(o.File, o.LineOf(f.Field))
	}
	finding.Sort(out)
	return out
}

// With returns the configuration after a change of its objects.
func (c *Config) With(change Change) *Config {
	out := *c
	out.Objects = c.Objects.With(change)
	return &out
}

// Closed is an object that is written but not in effect, because it could not be understood or an Envoy rejects it. If
// its kind is a security kind, nobody may call what it selects. An object of another kind is ignored.
type Closed struct {
	Key    Key // without a kind if even that is unknown
	Origin Origin
	Reason string // a clause: "spec.rules[0] has no field \"form\""
	// Selector is what the object selects, if known. nil means its whole namespace, or the whole mesh in the root
	// namespace.
	Selector map[string]string
}

// Equal reports whether two have the same meaning.
func (c Closed) Equal(d Closed) bool {
	return c.Key == d.Key && c.Reason == d.Reason && c.Origin.File == d.Origin.File && c.Origin.Line == d.Origin.Line &&
		c.Origin.FirstSeen.Equal(d.Origin.FirstSeen) && maps.Equal(c.Selector, d.Selector) &&
		(c.Selector == nil) == (d.Selector == nil)
}

// Older orders conflicting objects: the one first seen wins, then the smaller key. An object of unknown age comes last.
// Neither the position in files nor anything in the object itself counts.
func (c *Config) Older(a, b Key) int {
	return cmp.Or(CompareAge(c.Origin(a).FirstSeen, c.Origin(b).FirstSeen), a.Compare(b))
}

// SameAge reports whether it is unknown which of two objects is older.
func (c *Config) SameAge(a, b Key) bool {
	return CompareAge(c.Origin(a).FirstSeen, c.Origin(b).FirstSeen) == 0
}

// CompareAge orders Origin.FirstSeen times: the earlier first, an unknown one last.
func CompareAge(a, b time.Time) int {
	if a.IsZero() != b.IsZero() {
		if a.IsZero() {
			return 1
		}
		return -1
	}
	return a.Compare(b)
}

// ControlOf returns the addresses at which a gateway reaches the control plane for peers' control traffic; none if
// unknown.
func (s *Snapshot) ControlOf(gateway Node) []netip.AddrPort {
	switch {
	case len(s.PeeringAddresses) > 0:
		return s.PeeringAddresses
	case gateway.Reached.IsValid() && s.PeeringPort > 0:
		return []netip.AddrPort{netip.AddrPortFrom(gateway.Reached, s.PeeringPort)}
	}
	return nil
}

// Registry is what node agents registered: their nodes and the workloads they host.
type Registry struct {
	Nodes     []Node     // sorted by name
	Workloads []Workload // sorted by node, namespace, name
	// Clashes are findings about workloads that claim a name or address of another. Workloads does not contain them.
	Clashes []finding.Finding
}

// Role is what an agent runs as.
type Role string

// The roles. A gateway hosts no workloads.
const (
	RoleNode    Role = "node"
	RoleGateway Role = "gateway"
)

// Node is one registered agent and its Envoy.
type Node struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Gateway is nil for nodes.
	Gateway *GatewayInfo `json:"gateway,omitempty"`
	// Reached is the control plane's address to which a gateway's agent last connected, as the kernel reported it.
	Reached netip.Addr `json:"reached,omitzero"`
	// Builtin is which version of the built-in parts of Envoy's configuration its agent has (envoy.BuiltinVersion).
	Builtin string `json:"builtin,omitempty"`
}

// GatewayInfo is what a gateway agent reports about itself.
type GatewayInfo struct {
	// ServiceAccount in namespace isthmus-system determines the gateway's SPIFFE ID.
	ServiceAccount string `json:"serviceAccount"`
	// InnerAddress is the IP at which the mesh reaches the gateway.
	InnerAddress netip.Addr `json:"innerAddress"`
	// OuterAddress is the IP that the gateway binds for peers.
	OuterAddress netip.Addr `json:"outerAddress"`
	// InnerAddress6 and OuterAddress6 are the IPv6 addresses of a dual-stack gateway.
	InnerAddress6 netip.Addr `json:"innerAddress6,omitzero"`
	OuterAddress6 netip.Addr `json:"outerAddress6,omitzero"`
	// MaxConnections limits the connections from clients that its Envoy accepts; 0 means DefaultConnections.
	MaxConnections uint32 `json:"maxConnections,omitempty"`
}

// DefaultConnections is the default limit of an Envoy's connections from clients.
const DefaultConnections = 50_000

// Connections returns the limit of connections from clients.
func (g GatewayInfo) Connections() uint32 { return cmp.Or(g.MaxConnections, DefaultConnections) }

// Inner returns all addresses at which the mesh reaches the gateway.
func (g GatewayInfo) Inner() []netip.Addr { return validAddrs(g.InnerAddress, g.InnerAddress6) }

// Outer returns all addresses that the gateway binds for peers.
func (g GatewayInfo) Outer() []netip.Addr { return validAddrs(g.OuterAddress, g.OuterAddress6) }

func validAddrs(first, second netip.Addr) []netip.Addr {
	if second.IsValid() {
		return []netip.Addr{first, second}
	}
	return []netip.Addr{first}
}

// Workload is one registered workload.
type Workload struct {
	Name           string            `json:"name"`
	Namespace      string            `json:"namespace"`
	ServiceAccount string            `json:"serviceAccount"`
	Node           string            `json:"node"`
	Labels         map[string]string `json:"labels,omitempty"`
	Addresses      []netip.Addr      `json:"addresses"`
	// Netns is the path of the workload's network namespace on its node; empty for the node's own.
	Netns string `json:"netns,omitempty"`
	// Sidecar is set when the workload has its own Envoy.
	Sidecar bool `json:"sidecar,omitempty"`
	// Ports that the workload listens on. Services refer to them by number or name.
	Ports []WorkloadPort `json:"ports,omitempty"`
	// Away is set when the workload's network namespace does not exist. The workload serves nothing but keeps its name
	// and addresses.
	Away bool `json:"away,omitempty"`
	// Ready is the result of the agent's readiness probe.
	Ready bool `json:"ready"`
}

// Equal reports whether two registrations are equal.
func (w Workload) Equal(o Workload) bool {
	return w.Name == o.Name && w.Namespace == o.Namespace && w.ServiceAccount == o.ServiceAccount && w.Node == o.Node &&
		maps.Equal(w.Labels, o.Labels) && slices.Equal(w.Addresses, o.Addresses) && w.Netns == o.Netns &&
		w.Sidecar == o.Sidecar && slices.Equal(w.Ports, o.Ports) && w.Away == o.Away && w.Ready == o.Ready
}

// WorkloadPort is one port on which a workload listens.
type WorkloadPort struct {
	Name   string `json:"name,omitempty"`
	Number uint16 `json:"number"`
}

// PeerState is the state of a peer beyond its MeshPeer object.
type PeerState struct {
	// Roots are the PEM roots currently accepted for the peer, below a line that names the first trust they grew from;
	// nil before first trust. Use peerrules.Roots to read them.
	Roots []byte
	// BundleSequence of the newest accepted bundle (SPIFFE Trust Domain and Bundle §4.1.1).
	BundleSequence uint64
	// BundleTime is when the roots were last confirmed.
	BundleTime time.Time
	// Suspended by command, independent of the MeshPeer's field.
	Suspended bool
	// Revoked by command. The peer stays without effect, whatever the files say, until a new peering.
	Revoked bool
	// Catalogue is what the peer offers; nil until it sends one.
	Catalogue *Catalogue
	// Readiness says which of the offered services can be served, as last sent by the peer; nil until it sends one.
	Readiness *Readiness
}

// Readiness lists the offered services of a mesh that have no ready endpoint. Services that are not listed are presumed
// ready.
type Readiness struct {
	Sequence uint64        `json:"sequence"`
	Unready  []OfferedName `json:"unready"` // sorted, no duplicates
}

// OfferedName is the name of a service in a catalogue.
type OfferedName struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"` // the export's alias
}

// Compare orders names by namespace and name.
func (n OfferedName) Compare(o OfferedName) int {
	return cmp.Or(cmp.Compare(n.Namespace, o.Namespace), cmp.Compare(n.Name, o.Name))
}

// IsUnready reports whether a peer said that a service cannot be served now.
func (r *Readiness) IsUnready(n OfferedName) bool {
	if r == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(r.Unready, n, OfferedName.Compare)
	return found
}

// Catalogue is what one mesh offers another: names and ports, no addresses.
type Catalogue struct {
	Sequence uint64           `json:"sequence"`
	Time     time.Time        `json:"time"`
	Services []OfferedService `json:"services"`
}

// OfferedService is one entry of a catalogue.
type OfferedService struct {
	Name      string `json:"name"` // the export's alias
	Namespace string `json:"namespace"`
	Port      uint16 `json:"port"`
	Protocol  string `json:"protocol"` // HTTP, HTTP2, GRPC or TCP
}

// Invite is an open invitation. While it lasts, the gateways accept its one-time handshake.
type Invite struct {
	ID      string    `json:"id"`
	Peer    string    `json:"peer"`
	Expires time.Time `json:"expires"`
}

// Bootstrap is an accepted invitation in progress. The gateways pass the control plane's own TLS through to an address
// that is not trusted yet.
type Bootstrap struct {
	ID      string `json:"id"`
	Address string `json:"address"` // host:port of the inviter's gateway
}
