// Package agentapi is the gRPC API between agents (of nodes and gateways) and the control plane, on port 15012. Envoy's
// aggregated discovery service runs on the same connection.
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

// AttestRequest exchanges a join token for a node identity. It is sent over TLS without a client certificate, after the
// agent has verified the server by the root fingerprint in the token.
type AttestRequest struct {
	Token string `json:"token"`
	CSR   []byte `json:"csr"` // DER; only its public key and self-signature are used
}

// AttestResponse is the node's first identity.
type AttestResponse struct {
	Node  string        `json:"node"`
	Role  snapshot.Role `json:"role"`
	Chain [][]byte      `json:"chain"` // DER, leaf first
	Roots []byte        `json:"roots"` // PEM
}

// SignRequest asks for a certificate. If Namespace and ServiceAccount are empty, it renews the node's own.
type SignRequest struct {
	Namespace      string `json:"namespace,omitempty"`
	ServiceAccount string `json:"serviceAccount,omitempty"`
	CSR            []byte `json:"csr"` // DER; only its public key and self-signature are used
}

// SignResponse is one X.509-SVID.
type SignResponse struct {
	Chain [][]byte `json:"chain"` // DER, leaf first, without the root
	Roots []byte   `json:"roots"` // PEM
}

// Report is an agent's complete state. It is sent at the start of a Sync stream and after each change.
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
	// Sidecars is the state of Envoys that serve one workload each, by "<namespace>/<name>".
	Sidecars map[string]EnvoyState `json:"sidecars,omitempty"`
	// Elsewhere lists a gateway's configured addresses that its host does not have.
	Elsewhere []netip.Addr `json:"elsewhere,omitempty"`
	// Peers holds a gateway's totals by MeshPeer name since the agent started.
	Peers map[string]PeerCounts `json:"peers,omitempty"`
	Certs []CertState           `json:"certs,omitempty"`
	// Roots are the mesh's roots that the agent itself trusts: SHA-256, hex.
	Roots []string `json:"roots,omitempty"`
}

// EnvoyState is the state of one Envoy, or the combined state of all Envoys of an agent.
type EnvoyState struct {
	Running  bool   `json:"running"`
	Version  string `json:"version,omitempty"`
	Restarts int    `json:"restarts"`
	// Refused counts connections refused because a limit of Envoy, the listener or the filter chain was reached. The
	// time is that of the last observation. Both are counted since the agent started.
	Refused     uint64    `json:"refused,omitempty"`
	RefusedLast time.Time `json:"refusedLast,omitzero"`
	// Crashes counts the times that Envoy crashed since the agent started. LastCrash describes the last one.
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
	Root        string    `json:"root,omitempty"` // the root that it chains to: SHA-256, hex
}

// PeerCounts are totals from a gateway's access log about one peer.
type PeerCounts struct {
	HandshakesOK     uint64 `json:"handshakesOK"`
	HandshakesFailed uint64 `json:"handshakesFailed"`
	Requests         uint64 `json:"requests"`
	Denials          uint64 `json:"denials"`
	BytesIn          uint64 `json:"bytesIn"`
	BytesOut         uint64 `json:"bytesOut"`
}

// Instructions is everything that the control plane tells an agent. Each message is complete.
type Instructions struct {
	TrustDomain    string        `json:"trustDomain"`
	CertificateTTL time.Duration `json:"certificateTTL"`
	// Roots are the PEM roots of the mesh's own trust domain.
	Roots []byte `json:"roots,omitempty"`
	// SigningRoot is the current signing root: SHA-256, hex. Certificates under another root are to be replaced soon.
	SigningRoot string `json:"signingRoot,omitempty"`
	// RevokedAdmins are the serial numbers (hex) of revoked, unexpired administrator certificates. Agents answer
	// administrators, too.
	RevokedAdmins []string `json:"revokedAdmins,omitempty"`
	// DNS tables by workload, "<namespace>/<name>".
	DNS map[string]DNSTable `json:"dns,omitempty"`
	// Refused lists the parts of the agent's report that are not accepted, one finding per entry, for the agent's log.
	Refused []string `json:"refused,omitempty"`
	// Plaintext policy by workload, "<namespace>/<name>".
	Plaintext map[string]Plaintext `json:"plaintext,omitempty"`
}

// Plaintext says at which ports a workload accepts plaintext. If Any, at all ports but those in Except; otherwise only
// at those in Except.
type Plaintext struct {
	Any    bool     `json:"any,omitempty"`
	Except []uint16 `json:"except,omitempty"`
}

// Taken reports whether the workload accepts plaintext at any port.
func (p Plaintext) Taken() bool { return p.Any || len(p.Except) > 0 }

// At reports whether the workload accepts plaintext at a port.
func (p Plaintext) At(port uint16) bool { return p.Any != slices.Contains(p.Except, port) }

// Trial asks whether the agent's Envoy accepts some resources. It may consist of several messages.
type Trial struct {
	ID uint64 `json:"id"`
	// Workload selects the Envoy of one workload, "<namespace>/<name>". Empty selects the shared one.
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

// Verdict is the answer to a trial: accepted, refused by Envoy, or not tried because of an error.
type Verdict struct {
	ID      uint64 `json:"id"`
	Refusal string `json:"refusal,omitempty"` // Envoy's reason
	Failure string `json:"failure,omitempty"`
}

// MaxTrial limits the resources of one trial, in bytes.
const MaxTrial = 32 << 20

// DNSTable is what one workload may resolve in the mesh.
type DNSTable struct {
	// Hosts maps lower-case host names without a trailing dot to virtual addresses, in the workload's IP versions.
	Hosts map[string][]netip.Addr `json:"hosts,omitempty"`
	// Refusal is the answer for any other name <label>.<namespace>.svc.<domain> under these suffixes
	// ("default.svc.cluster.local"). Calls to it are refused with a reason, whether or not the service exists.
	Refusal netip.Addr `json:"refusal"`
	// Refusal6 is the IPv6 counterpart. Each is set only if the workload has addresses of that version.
	Refusal6        netip.Addr `json:"refusal6,omitzero"`
	RefusalSuffixes []string   `json:"refusalSuffixes,omitempty"`
	// MeshSuffix is the suffix under which all other names do not exist ("svc.cluster.local").
	MeshSuffix string `json:"meshSuffix"`
	// Forward passes queries for names outside the mesh to the node's upstreams. Without it, no query leaves the node:
	// where workloads may call only listed addresses, Hosts contains every name that they need.
	Forward bool `json:"forward,omitempty"`
}

// Server is implemented by the control plane. The caller's identity is in the context.
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

// Client is used by the agent.
type Client struct{ Conn grpc.ClientConnInterface }

// Attest exchanges a join token for a node identity.
func (c Client) Attest(ctx context.Context, r *AttestRequest) (*AttestResponse, error) {
	return rpc.Call[AttestRequest, AttestResponse](ctx, c.Conn, Service, "Attest", r)
}

// Sign requests one certificate.
func (c Client) Sign(ctx context.Context, r *SignRequest) (*SignResponse, error) {
	return rpc.Call[SignRequest, SignResponse](ctx, c.Conn, Service, "Sign", r)
}

// Sync opens the stream of reports and instructions.
func (c Client) Sync(ctx context.Context) (rpc.Stream[Report, Instructions], error) {
	return rpc.Open[Report, Instructions](ctx, c.Conn, Service, "Sync")
}

// Try opens the stream of trials. The agent signals that it is ready with an empty Verdict.
func (c Client) Try(ctx context.Context) (rpc.Stream[Verdict, Trial], error) {
	return rpc.Open[Verdict, Trial](ctx, c.Conn, Service, "Try")
}
