// Package snapshot is all that the control plane knows at one moment, immutable. The whole world enters the spine here;
// private keys and other secrets never do.
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

// Snapshot is one state of the world. Nothing reachable from it is ever written after it is made.
type Snapshot struct {
	// Time at which the snapshot was made; every "now" of the pure layers.
	Time time.Time
	// Config is what administrators wrote.
	Config *Config
	// Registry is what the nodes registered.
	Registry *Registry
	// Peers is what is known of peer meshes beyond configuration, by MeshPeer name.
	Peers map[string]PeerState
	// Invites are the open invitations, Bootstraps the acceptances under way.
	Invites    []Invite
	Bootstraps []Bootstrap
	// PeeringAddresses are where this mesh's gateways reach its control plane for what peers say, where the settings
	// say so.
	PeeringAddresses []netip.AddrPort
	// PeeringPort is where they reach it at the address that each reached it by before, where the settings do not. Ask
	// ControlOf.
	PeeringPort uint16
	// SilentGateways are this mesh's own that do not answer, or whose agent is away. Sorted by name.
	SilentGateways []string
	// SilentNodes are those of which nothing has been heard for so long that others are to be called. Sorted by name.
	SilentNodes []SilentNode
	// Reports are what is wrong at nodes, as their agents said last. Sorted by node; of others nothing is wrong.
	Reports []Report
	// Contained are the proxies that cannot live with the configuration as it stands. Sorted by name.
	Contained []Contained
	// Roots of this mesh's own trust domain, PEM.
	Roots []byte
	// VIPs are the stable virtual addresses, IPv4, by service host name. vip.Six is the other one.
	VIPs map[string]netip.Addr
}

// SilentNode is a node whose agent is away.
type SilentNode struct {
	Name  string
	Since time.Time
}

// Config is the whole configuration as it was read.
type Config struct {
	// Objects that are in effect. Of Mesh there is at most one.
	Objects *Objects
	// Closed are objects that are written but not carried out, sorted by key. They are not among Objects.
	Closed []Closed
	// Findings of reading: what could not be read and what was kept instead.
	Findings []finding.Finding
}

// Mesh is the object that says what this mesh is; nil until one is written.
func (c *Config) Mesh() *v1alpha1.Mesh {
	if all := Of[*v1alpha1.Mesh](c); len(all) > 0 {
		return all[0]
	}
	return nil
}

// Origin of an object; the zero Origin where there is no such object.
func (c *Config) Origin(k Key) Origin {
	if c == nil {
		return Origin{}
	}
	if o := c.Objects.Get(k); o != nil {
		return o.Origin
	}
	return Origin{}
}

// Report is findings as they are shown: in one list, sorted, each with the place where its object is written, if that
// is in effect. Those that say their place themselves keep it.
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

// With is the configuration after a change of its objects.
func (c *Config) With(change Change) *Config {
	out := *c
	out.Objects = c.Objects.With(change)
	return &out
}

// Closed is an object that is written but not carried out: it could not be understood, or Envoy cannot live with it.
// What an object of a security kind selects is closed: nobody may call it. An object of another kind is as if it were
// not written.
type Closed struct {
	Key    Key // without a kind where not even that can be told
	Origin Origin
	Reason string // a clause: "spec.rules[0] has no field \"form\""
	// what it selects where that can be told; nil means its whole namespace (the whole mesh in the root namespace)
	Selector map[string]string
}

// Equal says whether two are the same in all that they mean.
func (c Closed) Equal(d Closed) bool {
	return c.Key == d.Key && c.Reason == d.Reason && c.Origin.File == d.Origin.File && c.Origin.Line == d.Origin.Line &&
		c.Origin.FirstSeen.Equal(d.Origin.FirstSeen) && maps.Equal(c.Selector, d.Selector) &&
		(c.Selector == nil) == (d.Selector == nil)
}

// Older orders objects where only one may win: who was first seen earlier, then by key. An object of unknown age comes
// last. Nothing else may decide, least of all where an object is written or what it says of itself.
func (c *Config) Older(a, b Key) int {
	return cmp.Or(CompareAge(c.Origin(a).FirstSeen, c.Origin(b).FirstSeen), a.Compare(b))
}

// SameAge says that nobody knows which of two objects is the older one.
func (c *Config) SameAge(a, b Key) bool {
	return CompareAge(c.Origin(a).FirstSeen, c.Origin(b).FirstSeen) == 0
}

// CompareAge orders times of Origin.FirstSeen: the earlier one first, an unknown one last.
func CompareAge(a, b time.Time) int {
	if a.IsZero() != b.IsZero() {
		if a.IsZero() {
			return 1
		}
		return -1
	}
	return a.Compare(b)
}

// ControlOf is where a gateway reaches the control plane for what peers say; empty when that is not known.
func (s *Snapshot) ControlOf(gateway Node) []netip.AddrPort {
	switch {
	case len(s.PeeringAddresses) > 0:
		return s.PeeringAddresses
	case gateway.Reached.IsValid() && s.PeeringPort > 0:
		return []netip.AddrPort{netip.AddrPortFrom(gateway.Reached, s.PeeringPort)}
	}
	return nil
}

// Registry is what node agents registered: themselves and the workloads they host.
type Registry struct {
	Nodes     []Node     // sorted by name
	Workloads []Workload // sorted by node, namespace, name
	// Clashes are findings about workloads whose name or address another has. They are not among Workloads.
	Clashes []finding.Finding
}

// Role of an agent.
type Role string

// The roles. A gateway has no workloads.
const (
	RoleNode    Role = "node"
	RoleGateway Role = "gateway"
)

// Node is one registered agent and its Envoy.
type Node struct {
	Name string `json:"name"`
	Role Role   `json:"role"`
	// Gateway is set for gateways.
	Gateway *GatewayInfo `json:"gateway,omitempty"`
	// Reached is the control plane's address by which a gateway's agent reached it last: the kernel's word, not the
	// agent's.
	Reached netip.Addr `json:"reached,omitzero"`
}

// GatewayInfo is what a gateway agent tells of itself.
type GatewayInfo struct {
	// ServiceAccount in namespace isthmus-system; with it goes the gateway's SPIFFE ID.
	ServiceAccount string `json:"serviceAccount"`
	// InnerAddress is where the mesh reaches the gateway (ip).
	InnerAddress netip.Addr `json:"innerAddress"`
	// OuterAddress is the ip that the gateway binds for peers.
	OuterAddress netip.Addr `json:"outerAddress"`
	// InnerAddress6 and OuterAddress6 are IPv6 addresses beside those, of a gateway that has both versions.
	InnerAddress6 netip.Addr `json:"innerAddress6,omitzero"`
	OuterAddress6 netip.Addr `json:"outerAddress6,omitzero"`
	// MaxConnections is how many connections from clients its Envoy holds; 0 means DefaultConnections.
	MaxConnections uint32 `json:"maxConnections,omitempty"`
}

// DefaultConnections is how many connections from clients an Envoy holds whose settings say nothing else.
const DefaultConnections = 50_000

// Connections is how many connections from clients the gateway holds.
func (g GatewayInfo) Connections() uint32 { return cmp.Or(g.MaxConnections, DefaultConnections) }

// Inner are all addresses at which the mesh reaches the gateway.
func (g GatewayInfo) Inner() []netip.Addr { return given(g.InnerAddress, g.InnerAddress6) }

// Outer are all addresses that the gateway binds for peers.
func (g GatewayInfo) Outer() []netip.Addr { return given(g.OuterAddress, g.OuterAddress6) }

func given(first, second netip.Addr) []netip.Addr {
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
	// Netns is the path of the workload's network namespace on its node, empty for the node's own.
	Netns string `json:"netns,omitempty"`
	// Sidecar says that the workload has an Envoy of its own.
	Sidecar bool `json:"sidecar,omitempty"`
	// Ports that the workload listens on, by name; Services refer to them by number or name.
	Ports []WorkloadPort `json:"ports,omitempty"`
	// Away says that its network namespace is not there: the workload serves nobody, and keeps its name and addresses.
	Away bool `json:"away,omitempty"`
	// Ready is the agent's view of the readiness probe.
	Ready bool `json:"ready"`
}

// Equal says whether two workloads are registered alike.
func (w Workload) Equal(o Workload) bool {
	return w.Name == o.Name && w.Namespace == o.Namespace && w.ServiceAccount == o.ServiceAccount && w.Node == o.Node &&
		maps.Equal(w.Labels, o.Labels) && slices.Equal(w.Addresses, o.Addresses) && w.Netns == o.Netns &&
		w.Sidecar == o.Sidecar && slices.Equal(w.Ports, o.Ports) && w.Away == o.Away && w.Ready == o.Ready
}

// WorkloadPort is one port a workload listens on.
type WorkloadPort struct {
	Name   string `json:"name,omitempty"`
	Number uint16 `json:"number"`
}

// PeerState is what is known of a peer beyond its MeshPeer object.
type PeerState struct {
	// Roots currently accepted for the peer, PEM under a line that names the first trust they grew from; nil until
	// first trust. Use what package peerrules makes of them.
	Roots []byte
	// BundleSequence of the newest accepted bundle (SPIFFE Trust Domain and Bundle §4.1.1).
	BundleSequence uint64
	// BundleTime is when the roots were last confirmed fresh.
	BundleTime time.Time
	// Suspended by command, apart from the MeshPeer's own field.
	Suspended bool
	// Revoked by command: without effect, whatever files say, until it is peered anew.
	Revoked bool
	// Catalogue is what the peer offers us, nil until it pushed one.
	Catalogue *Catalogue
	// Readiness is which of that can be served now, as the peer said last; nil until it did.
	Readiness *Readiness
}

// Readiness is what one mesh tells another of the services that it offers: which have no endpoint that is ready. Of all
// others nothing is known to be wrong.
type Readiness struct {
	Sequence uint64        `json:"sequence"`
	Unready  []OfferedName `json:"unready"` // sorted, without doubles
}

// OfferedName is the name of a service in a catalogue.
type OfferedName struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"` // alias
}

// Compare orders names by namespace and name.
func (n OfferedName) Compare(o OfferedName) int {
	return cmp.Or(cmp.Compare(n.Namespace, o.Namespace), cmp.Compare(n.Name, o.Name))
}

// IsUnready says that a peer has said of a service that it cannot be served now.
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

// OfferedService is one line of a catalogue.
type OfferedService struct {
	Name      string `json:"name"` // alias
	Namespace string `json:"namespace"`
	Port      uint16 `json:"port"`
	Protocol  string `json:"protocol"` // HTTP, HTTP2, GRPC or TCP
}

// Invite is an open invitation: while it lasts, the gateways accept its one-use handshake.
type Invite struct {
	ID      string    `json:"id"`
	Peer    string    `json:"peer"`
	Expires time.Time `json:"expires"`
}

// Bootstrap is an acceptance under way: the gateways carry the control plane's own TLS to an address not trusted yet.
type Bootstrap struct {
	ID      string `json:"id"`
	Address string `json:"address"` // host:port of the inviter's gateway
}
