// Package snapshot is all that the control plane knows at one moment, immutable. The whole world enters the spine here;
// private keys and other secrets never do.
package snapshot

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	// PeeringAddresses are where this mesh's gateways reach its control plane for what peers say, where the settings say so.
	PeeringAddresses []netip.AddrPort
	// PeeringPort is where they reach it at the address that each reached it by before, where the settings do not. Ask
	// ControlOf.
	PeeringPort uint16
	// SilentGateways are this mesh's own that do not answer, or whose agent is away. Sorted by name.
	SilentGateways []string
	// SilentNodes are those of which nothing has been heard for so long that others are to be called. Sorted by name.
	SilentNodes []SilentNode
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

// Config is the whole configuration as it was read, sorted by namespace and name in each slice.
type Config struct {
	Mesh                  *v1alpha1.Mesh // nil until one is written
	MeshPeers             []*v1alpha1.MeshPeer
	FederatedExports      []*v1alpha1.FederatedExport
	FederatedImports      []*v1alpha1.FederatedImport
	Namespaces            []*corev1.Namespace
	Services              []*corev1.Service
	PeerAuthentications   []*security.PeerAuthentication
	AuthorizationPolicies []*security.AuthorizationPolicy
	ServiceEntries        []*networking.ServiceEntry
	WorkloadEntries       []*networking.WorkloadEntry

	// Closed are objects that are written but not carried out, sorted by key. They stand in none of the lists above.
	Closed []Closed

	// Origins says where each object was written.
	Origins Origins
	// Findings of reading: what could not be read and what was kept instead.
	Findings []finding.Finding
}

// Key names one object.
type Key struct{ Kind, Namespace, Name string }

// String is "Kind namespace/name", or "Kind name" for a kind without namespaces.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Kind + " " + k.Name
	}
	return k.Kind + " " + k.Namespace + "/" + k.Name
}

// Origins finds where an object was written. It is kept by namespace, so that a change copies what it touches and no more.
type Origins struct{ byNamespace map[string]*originsIn }

// originsIn are those of one namespace, never written once they are in an Origins.
type originsIn struct{ of map[Key]Origin }

// OriginsOf makes Origins of a map.
func OriginsOf(all map[Key]Origin) Origins {
	return Origins{}.With(slices.Collect(maps.Keys(all)), func(k Key) (Origin, bool) { return all[k], true })
}

// Lookup is the zero Origin for an object that was not read from a file.
func (o Origins) Lookup(k Key) Origin {
	if in := o.byNamespace[k.Namespace]; in != nil {
		return in.of[k]
	}
	return Origin{}
}

// Moved are the namespaces in which an object was written elsewhere, or first seen at another time, than in before. The
// one of objects without namespace is "".
func (o Origins) Moved(before Origins) map[string]bool {
	out := map[string]bool{}
	for ns, in := range o.byNamespace {
		was := before.byNamespace[ns]
		if was == in || was == nil {
			continue
		}
		for k, v := range in.of {
			if w, ok := was.of[k]; ok && (v.File != w.File || v.Line != w.Line || !v.FirstSeen.Equal(w.FirstSeen)) {
				out[ns] = true
				break
			}
		}
	}
	return out
}

// Len is how many objects have an origin.
func (o Origins) Len() int {
	n := 0
	for _, in := range o.byNamespace {
		n += len(in.of)
	}
	return n
}

// All are the objects and where they were written, in no order.
func (o Origins) All() iter.Seq2[Key, Origin] {
	return func(yield func(Key, Origin) bool) {
		for _, in := range o.byNamespace {
			for k, v := range in.of {
				if !yield(k, v) {
					return
				}
			}
		}
	}
}

// With is o with some objects as they now are: now says where one was written, or that it is gone.
func (o Origins) With(changed []Key, now func(Key) (Origin, bool)) Origins {
	next, own := maps.Clone(o.byNamespace), map[string]bool{}
	if next == nil {
		next = map[string]*originsIn{}
	}
	for _, k := range changed {
		if !own[k.Namespace] {
			own[k.Namespace] = true
			fresh := &originsIn{map[Key]Origin{}}
			if was := next[k.Namespace]; was != nil {
				fresh.of = maps.Clone(was.of)
			}
			next[k.Namespace] = fresh
		}
		if v, ok := now(k); ok {
			next[k.Namespace].of[k] = v
		} else {
			delete(next[k.Namespace].of, k)
		}
	}
	return Origins{next}
}

// Origin is where an object was written. Fields maps a field path ("spec.to[0].peer") to its line, counted from Line (0 is
// Line itself): so an object that only moved down its file keeps one map. Ask LineOf.
type Origin struct {
	File   string
	Line   int
	Fields map[string]int
	// FirstSeen is the object's age: when it was first seen, kept across restarts. Objects that came together have the
	// same. Zero is not known. Ask Config.Older.
	FirstSeen time.Time
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
	return cmp.Or(compareAge(c.Origins.Lookup(a).FirstSeen, c.Origins.Lookup(b).FirstSeen), a.Compare(b))
}

// OldestFirst is a list of one kind, sorted by key as those of a Config are, in the order of Older.
func OldestFirst[T metav1.Object](c *Config, kind string, list []T) []T {
	type aged struct {
		object T
		seen   time.Time
	}
	all := make([]aged, len(list))
	for i, o := range list {
		all[i] = aged{o, c.Origins.Lookup(Key{kind, o.GetNamespace(), o.GetName()}).FirstSeen}
	}
	slices.SortStableFunc(all, func(a, b aged) int { return compareAge(a.seen, b.seen) })
	out := make([]T, len(list))
	for i, a := range all {
		out[i] = a.object
	}
	return out
}

// SameAge says that nobody knows which of two objects is the older one.
func (c *Config) SameAge(a, b Key) bool {
	return compareAge(c.Origins.Lookup(a).FirstSeen, c.Origins.Lookup(b).FirstSeen) == 0
}

func compareAge(a, b time.Time) int {
	if a.IsZero() != b.IsZero() {
		if a.IsZero() {
			return 1
		}
		return -1
	}
	return a.Compare(b)
}

// Compare orders keys by kind, namespace and name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Kind, o.Kind), cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name))
}

// LineOf is the line of a field, or of its nearest enclosing field, or of the object.
func (o Origin) LineOf(field string) int {
	for f := field; f != ""; f = parentField(f) {
		if l, ok := o.Fields[f]; ok {
			return o.Line + l
		}
	}
	return o.Line
}

func parentField(f string) string {
	for i := len(f) - 1; i > 0; i-- {
		if f[i] == '.' || f[i] == '[' {
			return f[:i]
		}
	}
	return ""
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

// WorkloadPort is one port a workload listens on.
type WorkloadPort struct {
	Name   string `json:"name,omitempty"`
	Number uint16 `json:"number"`
}

// PeerState is what is known of a peer beyond its MeshPeer object.
type PeerState struct {
	// Roots currently accepted for the peer, PEM under a line that names the first trust they grew from; nil until first trust.
	// Use what package peerrules makes of them.
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
	// Readiness is which of that can be served now, as the peer said last; nil until it did. It is not kept.
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
