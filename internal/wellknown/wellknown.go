// Package wellknown defines the names, ports, marks and headers that Envoy's configuration, the agents and the control
// plane share.
package wellknown

// Names in Envoy's configuration that the agent serves or reads.
const (
	// ADSCluster is the bootstrap cluster that leads to the agent (Unix socket), for ADS, SDS and access logs.
	ADSCluster = "agent"
	// WithRootSuffix, appended to a certificate secret's name, requests the certificate with the root in its chain, for
	// peers that know only the root's fingerprint.
	WithRootSuffix = "+root"
	// BundleSecretPrefix, followed by a trust domain, names its roots as an SDS validation context. It is served over
	// ADS, not by the agent.
	BundleSecretPrefix = "bundle/"
	// WorkloadKey is the gRPC metadata with which an agent says that a discovery stream belongs to the Envoy of one
	// workload, "<namespace>/<name>".
	WorkloadKey = "isthmus-workload"
)

// Marks (SO_MARK) of Envoy's connections.
const (
	// SocketMark is on every connection that Envoy makes for a workload, so that capture lets it pass.
	SocketMark = 0x1573
	// InsideMark is on connections to the workload's own program, made by Envoy after it has admitted a caller, or by
	// the agent. A connection with SocketMark to the workload's own address is a call to itself and is redirected to
	// Envoy again. The two marks differ in one bit, so that one comparison matches both.
	InsideMark = SocketMark ^ 1
)

// The header with which one Envoy tells another whether a request may be retried, and its values.
const (
	// HeaderUnavailable is on answers that a mesh Envoy made itself because it could not reach the server. It is
	// removed from applications' answers. Its value says whether a server may have started the request. A request that
	// was not started may be retried elsewhere. One that may have been started is retried only if it is idempotent, and
	// by at most two further servers, since it may be what crashes them.
	HeaderUnavailable = "isthmus-unavailable"
	Begun             = "begun"
	BegunAgain        = "begun-again"
	NotBegun          = "not-begun"
)

// Tags of access log entries.
const (
	// TagRefused is on entries about connections that were closed without an answer. Its value is the reason.
	TagRefused = "refused"
	// TagName is on the same entries: the requested server name, or "-". Server names that end in CallerName are used
	// by callers in this mesh for raw TCP.
	TagName    = "sni"
	CallerName = ".caller"
	// TagAbsent is on entries about calls to an import. Its value says why nobody serves it, or is "-" if somebody
	// does.
	TagAbsent = "absent"
)

// Listeners, and the runtime layer for their limits.
const (
	// OutboundListener and InboundListener start the names of a workload's listeners, "<prefix><namespace>/<name>".
	OutboundListener = "outbound/"
	InboundListener  = "inbound/"
	// IngressListener is a gateway's listener for peers, EgressListener the one for callers in the mesh.
	IngressListener = "ingress"
	EgressListener  = "egress"
	// LimitsLayer is the runtime layer that Envoy fetches from its agent.
	LimitsLayer = "limits"
)

// Peering and probes.
const (
	// PeeringProtocol is the ALPN protocol between a gateway and its control plane for connections that carry TLS
	// between the control planes of two meshes. Connections without it carry probes.
	PeeringProtocol = "isthmus-peering"
	// ProbePath is the path of a probe to a peer's control plane. HeaderProbe, which only our control plane sets, is
	// the server name that our gateway uses at the peer's gateway; without it, the control plane's.
	ProbePath   = "/v1/probe"
	HeaderProbe = "isthmus-probe"
	// HeaderEgressLeg and HeaderIngressLeg are added by the two gateways to the answer of a probe, "<step>=<µs> …". If
	// our gateway answers itself because nobody else did, its header starts with "failed=<Envoy's response flags>".
	HeaderEgressLeg  = "isthmus-egress-leg"
	HeaderIngressLeg = "isthmus-ingress-leg"
)

// Ports of Envoy, the agent beside it, and the control plane.
const (
	OutboundPort     = 15001
	InboundPort      = 15006
	DNSPort          = 15053
	FederationPort   = 15443 // peers
	FederationEgress = 15444 // callers of imports in the mesh
	ControlPort      = 15012
	PeeringPort      = 15013 // control plane: peers' control traffic, from the gateways only
	HealthPort       = 15021
	MetricsPort      = 15020
)

// Names of access logs (envoy.data.accesslog log_name), by which the agent counts and records.
const (
	LogInbound   = "inbound"   // refusals at a workload
	LogOutbound  = "outbound"  // refusals at a caller
	LogIngress   = "ingress"   // every crossing into this mesh, and every refused one; tag "peer" names the MeshPeer
	LogPlaintext = "plaintext" // calls without mutual TLS to a PERMISSIVE port
	LogEgress    = "egress"    // every crossing out of this mesh, and every refused one; tag "peer" names the MeshPeer
	// LogUnserved: connections that the workload's program did not accept; counted but not written.
	LogUnserved = "unserved"
)
