// Package agentapi is what a node or gateway agent and the control plane say to each other, over gRPC on port 15012:
// this service, and Envoy's aggregated discovery service beside it on the same connection.
package agentapi

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"google.golang.org/grpc"

	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Service is the gRPC service name.
const Service = "isthmus.agent.v1alpha1.Agent"

// AttestRequest trades a join token for a node identity. Sent over TLS without a client certificate;
// the agent has checked the server against the fingerprint inside the token first.
type AttestRequest struct {
	Token string `json:"token"`
	CSR   []byte `json:"csr"` // DER; only its public key and its self-signature count
}

// AttestResponse is the node's first identity.
type AttestResponse struct {
	Node  string        `json:"node"`
	Role  snapshot.Role `json:"role"`
	Chain [][]byte      `json:"chain"` // DER, leaf first
	Roots []byte        `json:"roots"` // PEM
}

// SignRequest asks for a certificate. With Namespace and ServiceAccount empty it renews the node's own.
type SignRequest struct {
	Namespace      string `json:"namespace,omitempty"`
	ServiceAccount string `json:"serviceAccount,omitempty"`
	CSR            []byte `json:"csr"` // DER; only its public key and its self-signature count
}

// SignResponse is one X.509-SVID.
type SignResponse struct {
	Chain [][]byte `json:"chain"` // DER, leaf first, without the root
	Roots []byte   `json:"roots"` // PEM
}

// Report is what an agent tells on its Sync stream: all of it at first, and again whenever any of it changed.
type Report struct {
	Version string `json:"version"`
	// Builtin is which version of the built-in parts of Envoy's configuration the agent gives to its Envoys
	// (envoy.BuiltinVersion). Another than the control plane's is sent what it lacks.
	Builtin   string                `json:"builtin,omitempty"`
	Gateway   *snapshot.GatewayInfo `json:"gateway,omitempty"`   // gateways only
	Workloads []snapshot.Workload   `json:"workloads,omitempty"` // nodes only; Node is filled in by the server
	Troubles  []snapshot.Trouble    `json:"troubles,omitempty"`
	Outside   []snapshot.Outside    `json:"outside,omitempty"`
	Envoy     EnvoyState            `json:"envoy"`
	// by workload that has an Envoy of its own, "<namespace>/<name>"
	Sidecars map[string]EnvoyState `json:"sidecars,omitempty"`
	// gateways: addresses of theirs that their host does not have
	Elsewhere []netip.Addr `json:"elsewhere,omitempty"`
	// gateways: totals by MeshPeer name since the agent began
	Peers map[string]PeerCounts `json:"peers,omitempty"`
	Certs []CertState           `json:"certs,omitempty"`
	// of the mesh, as the agent itself trusts them: SHA-256, hex
	Roots []string `json:"roots,omitempty"`
}

// EnvoyState is how the agent's Envoy is, or all of them together.
type EnvoyState struct {
	Running  bool   `json:"running"`
	Version  string `json:"version,omitempty"`
	Restarts int    `json:"restarts"`
	// Refused connections, because Envoy or the listener or the chain that they were for held as many as it may, and
	// when that was seen last. Both are since the agent began.
	Refused     uint64    `json:"refused,omitempty"`
	RefusedLast time.Time `json:"refusedLast,omitzero"`
	// Crashes are how often it ended by a fault of its own since the agent began, LastCrash is how it did so last.
	Crashes   int    `json:"crashes,omitempty"`
	LastCrash string `json:"lastCrash,omitempty"`
}

// CertState is one certificate in use at an agent.
type CertState struct {
	SPIFFEID    string    `json:"spiffeID"`
	Serial      string    `json:"serial"`      // hex
	Fingerprint string    `json:"fingerprint"` // SHA-256 of the DER, hex
	NotBefore   time.Time `json:"notBefore"`
	NotAfter    time.Time `json:"notAfter"`
	Root        string    `json:"root,omitempty"` // that it leads to: SHA-256, hex
}

// PeerCounts are what a gateway's Envoy logged about one peer.
type PeerCounts struct {
	HandshakesOK     uint64 `json:"handshakesOK"`
	HandshakesFailed uint64 `json:"handshakesFailed"`
	Requests         uint64 `json:"requests"`
	Denials          uint64 `json:"denials"`
	BytesIn          uint64 `json:"bytesIn"`
	BytesOut         uint64 `json:"bytesOut"`
}

// Instructions is what the control plane tells an agent: all of it each time.
type Instructions struct {
	TrustDomain    string        `json:"trustDomain"`
	CertificateTTL time.Duration `json:"certificateTTL"`
	// Roots of the mesh's own trust domain, PEM.
	Roots []byte `json:"roots,omitempty"`
	// SigningRoot is the root under which certificates are issued now, SHA-256, hex. One that leads to another is
	// replaced soon.
	SigningRoot string `json:"signingRoot,omitempty"`
	// RevokedAdmins are the serial numbers, hex, of administrators' certificates that were revoked and have not ended
	// yet: agents, too, answer administrators.
	RevokedAdmins []string `json:"revokedAdmins,omitempty"`
	// DNS by workload, "<namespace>/<name>".
	DNS map[string]DNSTable `json:"dns,omitempty"`
	// Refused says what of the agent's report does not stand, and why, one finding a line: for its log.
	Refused []string `json:"refused,omitempty"`
	// Plaintext by workload, "<namespace>/<name>".
	Plaintext map[string]Plaintext `json:"plaintext,omitempty"`
}

// Plaintext says at which ports a workload takes plaintext: at any but the exceptions, or at none but the exceptions.
type Plaintext struct {
	Any    bool     `json:"any,omitempty"`
	Except []uint16 `json:"except,omitempty"`
}

// Taken reports whether the workload takes plaintext at any port.
func (p Plaintext) Taken() bool { return p.Any || len(p.Except) > 0 }

// At reports whether the workload takes plaintext at a port.
func (p Plaintext) At(port uint16) bool { return p.Any != slices.Contains(p.Except, port) }

// Trial asks whether the agent's Envoy could live with some resources, which may come in several messages.
type Trial struct {
	ID uint64 `json:"id"`
	// whose Envoy, "<namespace>/<name>"; empty for one that serves all
	Workload  string          `json:"workload,omitempty"`
	Resources []TrialResource `json:"resources,omitempty"`
	More      bool            `json:"more,omitempty"` // another message of this trial follows
}

// TrialResource is one Envoy resource.
type TrialResource struct {
	Type string `json:"type"`
	Name string `json:"name"`
	Body []byte `json:"body"`
}

// Verdict is the answer to one trial: Envoy lives with it, or refuses it, or it could not be tried.
type Verdict struct {
	ID      uint64 `json:"id"`
	Refusal string `json:"refusal,omitempty"` // in Envoy's words
	Failure string `json:"failure,omitempty"`
}

// MaxTrial bounds the resources of one trial, in bytes.
const MaxTrial = 32 << 20

// DNSTable is what one workload may resolve inside the mesh.
type DNSTable struct {
	// Hosts maps a lower-case host name without trailing dot to its virtual addresses, of the IP versions that the
	// workload has.
	Hosts map[string][]netip.Addr `json:"hosts,omitempty"`
	// Refusal answers every other name <label>.<namespace>.svc.<domain> for these suffixes
	// ("default.svc.cluster.local"): a call there is refused with the reason, whether or not the service exists.
	Refusal netip.Addr `json:"refusal"`
	// Refusal6 is the same for IPv6. A workload has each of the two that it has addresses of.
	Refusal6        netip.Addr `json:"refusal6,omitzero"`
	RefusalSuffixes []string   `json:"refusalSuffixes,omitempty"`
	// MeshSuffix is the suffix under which every other name does not exist ("svc.cluster.local").
	MeshSuffix string `json:"meshSuffix"`
	// Forward lets names outside the mesh be asked of the node's upstreams. Without it no question leaves the node:
	// where workloads may call listed addresses only, every name that they need is in Hosts.
	Forward bool `json:"forward,omitempty"`
}

// Server is the control plane's side. The caller's identity is in the context's TLS peer.
type Server interface {
	Attest(context.Context, *AttestRequest) (*AttestResponse, error)
	Sign(context.Context, *SignRequest) (*SignResponse, error)
	Sync(rpc.Stream[Instructions, Report]) error
	Try(rpc.Stream[Trial, Verdict]) error
}

// Desc registers a Server: grpcServer.RegisterService(&agentapi.Desc, srv).
var Desc = grpc.ServiceDesc{
	ServiceName: Service,
	HandlerType: (*Server)(nil),
	Streams: []grpc.StreamDesc{
		rpc.Unary("Attest", Server.Attest),
		rpc.Unary("Sign", Server.Sign),
		rpc.Bidi("Sync", Server.Sync),
		rpc.Bidi("Try", Server.Try),
	},
}

// Client is the agent's side.
type Client struct{ Conn grpc.ClientConnInterface }

// Attest trades a join token for a node identity.
func (c Client) Attest(ctx context.Context, r *AttestRequest) (*AttestResponse, error) {
	return rpc.Call[AttestRequest, AttestResponse](ctx, c.Conn, Service, "Attest", r)
}

// Sign asks for one certificate.
func (c Client) Sign(ctx context.Context, r *SignRequest) (*SignResponse, error) {
	return rpc.Call[SignRequest, SignResponse](ctx, c.Conn, Service, "Sign", r)
}

// Sync opens the standing conversation.
func (c Client) Sync(ctx context.Context) (rpc.Stream[Report, Instructions], error) {
	return rpc.Open[Report, Instructions](ctx, c.Conn, Service, "Sync")
}

// Try opens the stream of trials. The agent says that it is ready by an empty verdict.
func (c Client) Try(ctx context.Context) (rpc.Stream[Verdict, Trial], error) {
	return rpc.Open[Verdict, Trial](ctx, c.Conn, Service, "Try")
}
