// Package wellknown is the names, ports, marks and headers that Envoy's configuration, the agents beside it and the
// control plane have in common.
package wellknown

// Names in Envoy's configuration that its agent serves or reads.
const (
	// ADSCluster is the bootstrap cluster at which Envoy reaches the agent (Unix socket): ADS, SDS for certificates,
	// access logs.
	ADSCluster = "agent"
	// WithRootSuffix after a certificate secret's name asks for the same certificate with the root appended to its
	// chain, for handshakes with those who so far know only the root's fingerprint.
	WithRootSuffix = "+root"
	// BundleSecretPrefix before a trust domain names its roots as an SDS validation context; served over ADS, not by
	// the agent.
	BundleSecretPrefix = "bundle/"
	// WorkloadKey is the gRPC metadata by which an agent says on a discovery stream that it is for the Envoy of one
	// workload, "<namespace>/<name>", and not for one that serves all.
	WorkloadKey = "isthmus-workload"
)

// Marks of Envoy's connections.
const (
	// SocketMark is the SO_MARK of every connection that Envoy makes for a workload, so that capture lets it pass.
	SocketMark = 0x1573
	// InsideMark is that of the connections that reach a workload's own program: Envoy's, once it has let a caller in,
	// and the agent's. One with SocketMark to the workload's own address is a call to itself and is led to Envoy again.
	// The two marks differ in one bit, so that one comparison finds both.
	InsideMark = SocketMark ^ 1
)

// The header by which one Envoy tells another whether a request may be sent again, and its values.
const (
	// HeaderUnavailable is on answers that an Envoy of a mesh made itself because it could not reach what is behind it.
	// An application cannot set it: what an application answers says nothing of who carries it. Its value says whether
	// a server may have begun the request: one that was not begun may be sent to another, one that may have been only
	// if it is safe to repeat, and not again once two others have been asked, since it may be what ended them.
	HeaderUnavailable = "isthmus-unavailable"
	Begun             = "begun"
	BegunAgain        = "begun-again"
	NotBegun          = "not-begun"
)

// Tags of access-log entries.
const (
	// TagRefused is on entries of the access log about connections that were closed without a word. Its value is the
	// reason.
	TagRefused = "refused"
	// TagName is on the same entries: the name that TLS asked for, "-" for none. CallerName ends those by which callers
	// of this mesh ask for raw TCP.
	TagName    = "sni"
	CallerName = ".caller"
	// TagAbsent is on entries about calls to an import that nobody serves. Its value is why; "-" where there is
	// somebody.
	TagAbsent = "absent"
)

// Listeners, and the runtime layer of their limits.
const (
	// OutboundListener and InboundListener begin the names of a workload's listeners, "<prefix><namespace>/<name>".
	OutboundListener = "outbound/"
	InboundListener  = "inbound/"
	// IngressListener is a gateway's for peers, EgressListener the one for the mesh's own callers.
	IngressListener = "ingress"
	EgressListener  = "egress"
	// LimitsLayer is the runtime layer that Envoy asks its agent for.
	LimitsLayer = "limits"
)

// Peering and probes.
const (
	// PeeringProtocol is what a gateway and its control plane agree on (ALPN) for a connection inside which the control
	// planes of two meshes speak TLS with each other. Without it the connection brings probes.
	PeeringProtocol = "isthmus-peering"
	// ProbePath is what a probe asks of a peer's control plane. HeaderProbe, set by our own control plane alone, is the
	// name (SNI) under which our gateway shall ask the peer's for it; without it, the control plane's.
	ProbePath   = "/v1/probe"
	HeaderProbe = "isthmus-probe"
	// HeaderEgressLeg and HeaderIngressLeg are what the two gateways on the way of a probe write on its answer,
	// "<step>=<µs> …". Where our own gateway answers itself, because nobody else did, its own begins with
	// "failed=<Envoy's response flags>".
	HeaderEgressLeg  = "isthmus-egress-leg"
	HeaderIngressLeg = "isthmus-ingress-leg"
)

// Ports of an Envoy, of the agent beside it, and of the control plane.
const (
	OutboundPort     = 15001
	InboundPort      = 15006
	DNSPort          = 15053
	FederationPort   = 15443 // peers
	FederationEgress = 15444 // local callers of imports, inside only
	ControlPort      = 15012
	PeeringPort      = 15013 // control plane: what peers' control planes say, through the gateways only
	HealthPort       = 15021
	MetricsPort      = 15020
)

// Names of access logs (envoy.data.accesslog log_name): the agent counts and records by them.
const (
	LogInbound   = "inbound"   // refusals at a workload
	LogOutbound  = "outbound"  // refusals at a caller
	LogIngress   = "ingress"   // every crossing into this mesh, and every refused one; tag "peer" names the MeshPeer
	LogPlaintext = "plaintext" // every call without mutual TLS to a port that takes both
	LogEgress    = "egress"    // every crossing out of this mesh, and every refused one; tag "peer" names the MeshPeer
	// connections that a workload's own program did not take, told at once and written nowhere
	LogUnserved = "unserved"
)
