// Package adminapi is what the command line and the control plane say to each other, over gRPC: on a Unix socket whose
// peer credentials are checked, or on port 15012 with an administrator's certificate.
package adminapi

import (
	"context"
	"net/netip"
	"time"

	"google.golang.org/grpc"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Service is the gRPC service name.
const Service = "isthmus.admin.v1alpha1.Admin"

// Empty is a message without content.
type Empty struct{}

// TokenRequest asks for a join token.
type TokenRequest struct {
	Node       string           `json:"node"`
	Role       snapshot.Role    `json:"role"`                // node or gateway
	Identities []string         `json:"identities"`          // what the node may host: see grant.Grant
	Workloads  []grant.Workload `json:"workloads,omitempty"` // likewise
	Addresses  []netip.Prefix   `json:"addresses,omitempty"` // likewise; none: the private ones, or those that a gateway first names
	TTL        time.Duration    `json:"ttl"`
}

// Grant is what the token shall grant.
func (r *TokenRequest) Grant() grant.Grant {
	return grant.Grant{Identities: r.Identities, Workloads: r.Workloads, Addresses: r.Addresses}
}

// TokenResponse carries a secret: print it once, log it never.
type TokenResponse struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

// StatusResponse is the state of the mesh.
type StatusResponse struct {
	Mesh         string            `json:"mesh"`
	TrustDomain  string            `json:"trustDomain"`
	Version      string            `json:"version"`
	Started      time.Time         `json:"started"`
	ConfigFiles  int               `json:"configFiles"`
	Objects      int               `json:"objects"`
	Findings     []finding.Finding `json:"findings"`
	Proxies      []ProxyStatus     `json:"proxies"`
	RootNotAfter time.Time         `json:"rootNotAfter"`
	RootSHA256   string            `json:"rootSHA256"`
}

// ProxyStatus is one Envoy as the control plane sees it.
type ProxyStatus struct {
	Name      string               `json:"name"`
	Role      snapshot.Role        `json:"role"`
	Connected bool                 `json:"connected"`
	Since     time.Time            `json:"since"`
	Workloads []string             `json:"workloads"`
	Envoy     agentapi.EnvoyState  `json:"envoy"`
	Types     []TypeStatus         `json:"types"`
	Certs     []agentapi.CertState `json:"certs"`
	// Contained says how the proxy is kept from what its Envoy cannot live with; nil when there is no need.
	Contained *Containment `json:"contained,omitempty"`
}

// Containment is what one proxy is told otherwise than the configuration says.
type Containment struct {
	Held        bool          `json:"held"`      // it lives on the last configuration that it lived with, without any change since
	Searching   bool          `json:"searching"` // the cause is being looked for
	Reason      string        `json:"reason,omitempty"`
	Quarantined []Quarantined `json:"quarantined"`
}

// Quarantined is an object that is closed at one proxy until it says something else.
type Quarantined struct {
	Object string    `json:"object"` // "AuthorizationPolicy default/payments"
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// TypeStatus is one xDS resource type at one proxy.
type TypeStatus struct {
	Type      string    `json:"type"` // CDS, EDS, LDS, RDS, SDS
	Resources int       `json:"resources"`
	Sent      string    `json:"sent"`  // version last sent
	Acked     string    `json:"acked"` // version last acknowledged
	SentAt    time.Time `json:"sentAt"`
	AckedAt   time.Time `json:"ackedAt"`
	Nack      string    `json:"nack,omitempty"` // Envoy's message, while its last answer was a refusal
}

// ProxyConfigRequest asks for what one proxy was told.
type ProxyConfigRequest struct {
	Name string `json:"name"`
	Type string `json:"type,omitempty"` // CDS, EDS, LDS, RDS, SDS; empty for all
}

// ProxyConfigResponse is what one proxy was told.
type ProxyConfigResponse struct {
	Resources []ProxyResource `json:"resources"`
}

// ProxyResource is one Envoy resource and the objects it comes from.
type ProxyResource struct {
	Type    string         `json:"type"`
	Name    string         `json:"name"`
	Version string         `json:"version"`
	Bytes   int            `json:"bytes"`
	Objects []string       `json:"objects"` // "AuthorizationPolicy default/payments (samples/cards/policy.yaml:3)"
	Config  map[string]any `json:"config,omitempty"`
}

// PeerInviteRequest opens an invitation for one named peer.
type PeerInviteRequest struct {
	Peer string        `json:"peer"`
	TTL  time.Duration `json:"ttl"` // at most 15 min
}

// PeerInviteResponse is the invitation. Token is a secret.
type PeerInviteResponse struct {
	Token       string    `json:"token"`
	Expires     time.Time `json:"expires"`
	TrustDomain string    `json:"trustDomain"`
	Fingerprint string    `json:"fingerprint"` // of this mesh: what both administrators compare
	Addresses   []string  `json:"addresses"`
}

// PeerAcceptRequest accepts a peer's invitation.
type PeerAcceptRequest struct {
	Token string `json:"token"`
	Name  string `json:"name,omitempty"` // local name for the peer; default: what it proposes
}

// PeerAcceptResponse is the peering made.
type PeerAcceptResponse struct {
	Peer             string `json:"peer"`
	TrustDomain      string `json:"trustDomain"`
	KnownAs          string `json:"knownAs"`
	OwnFingerprint   string `json:"ownFingerprint"`
	PeersFingerprint string `json:"peersFingerprint"`
}

// PeerRequest names a peer.
type PeerRequest struct {
	Peer string `json:"peer,omitempty"` // empty: all, where a list is asked for
}

// PeerListResponse lists peers.
type PeerListResponse struct {
	Peers []PeerStatus `json:"peers"`
}

// PeerStatus is everything known about one peer.
type PeerStatus struct {
	Name              string              `json:"name"`
	TrustDomain       string              `json:"trustDomain"`
	KnownAs           string              `json:"knownAs"`
	Source            string              `json:"source"` // file:line of its MeshPeer, or "peering" when made by a token
	Addresses         []string            `json:"addresses"`
	PeersFingerprint  string              `json:"peersFingerprint"` // over its roots, its gateways' identities and addresses
	OwnFingerprint    string              `json:"ownFingerprint"`   // likewise of this mesh, as the peer should see it
	Roots             []string            `json:"roots"`            // SHA-256 of the peer's roots
	OwnRoots          []string            `json:"ownRoots"`
	BundleSequence    uint64              `json:"bundleSequence"`
	BundleTime        time.Time           `json:"bundleTime"`
	MaxBundleAge      time.Duration       `json:"maxBundleAge"`
	RootNotAfter      time.Time           `json:"rootNotAfter"`
	CatalogueSequence uint64              `json:"catalogueSequence"`
	CatalogueTime     time.Time           `json:"catalogueTime"`
	Offered           int                 `json:"offered"`
	Exports           int                 `json:"exports"`
	Imports           int                 `json:"imports"`
	Counts            agentapi.PeerCounts `json:"counts"`
	Conditions        []Condition         `json:"conditions"`
}

// Condition follows the Kubernetes convention.
type Condition struct {
	Type    string    `json:"type"`   // TrustEstablished, BundleFresh, CatalogSynced, DataPathReady, Expiring, Suspended
	Status  string    `json:"status"` // True, False, Unknown
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	Since   time.Time `json:"since"`
}

// PeerProbeRequest asks for a synthetic request through both gateways.
type PeerProbeRequest struct {
	Peer   string `json:"peer"`
	Import string `json:"import,omitempty"` // namespace/name of a FederatedImport that the peer serves; empty: its control plane alone
}

// PeerProbeResponse is how far a probe came, and what each leg took.
type PeerProbeResponse struct {
	Peer   string        `json:"peer"`
	Import string        `json:"import,omitempty"`
	Asked  string        `json:"asked"` // the name in the handshake with the peer's gateway
	Took   time.Duration `json:"took"`  // of it all; zero when no answer came
	Legs   []ProbeLeg    `json:"legs"`
	Proves string        `json:"proves"` // what the last leg shows and does not show
}

// ProbeLeg is one step on the way.
type ProbeLeg struct {
	From   string        `json:"from"`
	To     string        `json:"to"`
	Step   string        `json:"step"`  // consent, connect, handshake, answer, ready
	State  string        `json:"state"` // ok, failed, untried
	Took   time.Duration `json:"took,omitempty"`
	Detail string        `json:"detail,omitempty"`
	Remedy string        `json:"remedy,omitempty"`
}

// States of a ProbeLeg.
const (
	LegOK      = "ok"
	LegFailed  = "failed"
	LegUntried = "untried"
)

// PeerManifestRequest asks for the MeshPeer file that describes this mesh to a peer, for peering without a connection.
type PeerManifestRequest struct {
	As      string `json:"as"`      // name under which the peer will know this mesh: metadata.name of the file
	KnownAs string `json:"knownAs"` // name under which this mesh will know the peer
}

// PeerManifestResponse is that file.
type PeerManifestResponse struct {
	YAML        string `json:"yaml"`
	Fingerprint string `json:"fingerprint"`
}

// CatalogResponse is what peers offer.
type CatalogResponse struct {
	Entries []CatalogEntry `json:"entries"`
}

// CatalogEntry is one offer.
type CatalogEntry struct {
	Peer string `json:"peer"`
	snapshot.OfferedService
	ImportedAs []string `json:"importedAs"`
}

// ExportsResponse is what this mesh offers.
type ExportsResponse struct {
	Exports []ExportStatus `json:"exports"`
}

// ExportStatus is one service offered to one peer.
type ExportStatus struct {
	Name      string `json:"name"` // namespace/name of the FederatedExport
	Service   string `json:"service"`
	Port      uint16 `json:"port"`
	Protocol  string `json:"protocol"`
	Alias     string `json:"alias"`
	Peer      string `json:"peer"`
	SNI       string `json:"sni"`
	Rules     int    `json:"rules"`
	Endpoints int    `json:"endpoints"` // healthy ones
	State     string `json:"state"`     // Ready, or why not
}

// ImportsResponse is what this mesh uses of its peers.
type ImportsResponse struct {
	Imports []ImportStatus `json:"imports"`
}

// ImportStatus is one imported service.
type ImportStatus struct {
	Name     string   `json:"name"`
	Host     string   `json:"host"`
	Port     uint16   `json:"port"`
	Protocol string   `json:"protocol"`
	VIP      string   `json:"vip"`
	From     []string `json:"from"` // "cards/default/payments weight 1 priority 0 ready"
	Callers  []string `json:"callers"`
	State    string   `json:"state"`
}

// CertListResponse lists certificates in use.
type CertListResponse struct {
	Certs []NodeCert `json:"certs"`
}

// NodeCert is one certificate at one node.
type NodeCert struct {
	Node string `json:"node"`
	agentapi.CertState
}

// CheckResponse is a list of checks made.
type CheckResponse struct {
	Checks []Check `json:"checks"`
}

// Check is one thing looked at.
type Check struct {
	Name   string `json:"name"`
	State  string `json:"state"` // ok, warning, failed
	Detail string `json:"detail"`
	Remedy string `json:"remedy,omitempty"`
}

// AccessResponse says who may call whom.
type AccessResponse struct {
	Edges []AccessEdge `json:"edges"`
}

// AccessEdge is one caller and one destination that policy lets it call (rules on methods, paths or addresses may narrow it).
type AccessEdge struct {
	From string   `json:"from"` // workload namespace/name
	To   string   `json:"to"`   // host:port
	By   []string `json:"by"`   // the objects that allow it
}

// AdminCertRequest asks for an administrator's certificate.
type AdminCertRequest struct {
	Name string        `json:"name"`
	CSR  []byte        `json:"csr"`
	TTL  time.Duration `json:"ttl,omitempty"` // at most a day; 0: the usual
}

// AdminListResponse lists administrators' certificates.
type AdminListResponse struct {
	Admins []AdminCert `json:"admins"`
}

// AdminCert is one certificate of an administrator.
type AdminCert struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Serial   string    `json:"serial"` // hex
	Created  time.Time `json:"created"`
	MadeBy   string    `json:"madeBy"`
	NotAfter time.Time `json:"notAfter"`
	Revoked  time.Time `json:"revoked,omitzero"`
}

// AdminRevokeRequest names an administrator, or one certificate by its ID. One of the two is empty.
type AdminRevokeRequest struct {
	Name string `json:"name,omitempty"`
	ID   string `json:"id,omitempty"`
}

// AdminRevokeResponse is what was revoked.
type AdminRevokeResponse struct {
	Admins []AdminCert `json:"admins"`
	Ended
}

// TokenListResponse lists join tokens, never their secrets.
type TokenListResponse struct {
	Tokens []TokenInfo `json:"tokens"`
}

// TokenInfo is one join token.
type TokenInfo struct {
	ID      string        `json:"id"`
	Node    string        `json:"node"`
	Role    snapshot.Role `json:"role"`
	Grant   grant.Grant   `json:"grant"`
	Created time.Time     `json:"created"`
	MadeBy  string        `json:"madeBy"`
	Expires time.Time     `json:"expires"`
	State   string        `json:"state"` // open, used, expired, cancelled
	UsedBy  string        `json:"usedBy,omitempty"`
}

// TokenCancelRequest names a join token, or all that are open of one maker. One of the two is empty.
type TokenCancelRequest struct {
	ID     string `json:"id,omitempty"`
	MadeBy string `json:"madeBy,omitempty"` // as TokenInfo has it
}

// TokenCancelResponse says how many tokens are void now.
type TokenCancelResponse struct {
	Cancelled int `json:"cancelled"`
	Ended
}

// NodeRequest names a node or gateway.
type NodeRequest struct {
	Node string `json:"node"`
}

// RevokedNode is what a node that was revoked can still do harm with: the certificates that it got for its workloads, which
// other workloads accept until they end or the root that they lead to is replaced.
type RevokedNode struct {
	Node         string        `json:"node"`
	Certificates []RevokedCert `json:"certificates"`
	Ended
}

// Ended is how a revocation or cancellation went, which is in force in any case.
type Ended struct {
	// Unwritten is why it is not in the state file yet, so that a restart would forget it. It is tried until it is.
	Unwritten string `json:"unwritten,omitempty"`
}

// RevokedCert is an identity, and when the last certificate of it ends that the node got.
type RevokedCert struct {
	SPIFFEID string    `json:"spiffeID"`
	NotAfter time.Time `json:"notAfter"`
}

// CARotateRequest begins the replacement of the root, or changes one that is under way.
type CARotateRequest struct {
	Force  bool `json:"force,omitempty"`  // go on without those for whom the present step waits
	Cancel bool `json:"cancel,omitempty"` // withdraw the new root, while it has not signed yet
}

// CAStatusResponse is the mesh's certificate authority.
type CAStatusResponse struct {
	TrustDomain string      `json:"trustDomain"`
	Operator    bool        `json:"operator"` // the root is an operator's
	Roots       []CARoot    `json:"roots"`    // trusted ones, the one that signs first
	Rotation    *CARotation `json:"rotation,omitempty"`
}

// CARoot is one root that the mesh trusts.
type CARoot struct {
	SHA256   string    `json:"sha256"`
	NotAfter time.Time `json:"notAfter"`
	Signs    bool      `json:"signs"`
}

// CARotation is the replacement of the root that is under way, or the last one.
type CARotation struct {
	Step      string    `json:"step"` // prepared, distributed, activated, drained, done, cancelled
	Since     time.Time `json:"since"`
	Began     time.Time `json:"began"`
	OldSHA256 string    `json:"oldSHA256"`
	NewSHA256 string    `json:"newSHA256"`
	Waits     []CAWait  `json:"waits"`
	Passed    []string  `json:"passed"` // whom --force left behind
	// Expected is when the step ends at the latest; zero when it depends on somebody coming back.
	Expected time.Time `json:"expected"`
	Error    string    `json:"error,omitempty"` // why the last step failed; it is tried again
}

// CAWait is somebody for whom a rotation waits.
type CAWait struct {
	What  string    `json:"what"` // node, gateway, peer, invitation, administrator, control plane
	Name  string    `json:"name"`
	Why   string    `json:"why"`
	Until time.Time `json:"until"` // when the wait ends by itself; zero: never
}

// EventsRequest asks for what was done; empty fields select all.
type EventsRequest struct {
	Since  time.Time `json:"since,omitzero"`
	Actor  string    `json:"actor,omitempty"`  // part of it
	Action string    `json:"action,omitempty"` // part of it
	Limit  int       `json:"limit,omitempty"`  // the last so many, and as many kinds of refusals; 0: 100
}

// EventsResponse is what was done and tried, oldest first.
type EventsResponse struct {
	Events []Event `json:"events"`
}

// Event is something that was done, or a number of equal refusals.
type Event struct {
	Seq     uint64    `json:"seq,omitempty"` // none of refusals, which are counted
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`
	From    string    `json:"from"`
	Action  string    `json:"action"`
	Object  string    `json:"object"`
	Outcome string    `json:"outcome"` // ok, failed, refused; begun: its end is not known
	Detail  string    `json:"detail,omitempty"`
	First   time.Time `json:"first"` // when the first of equal refusals came; Time is the last one's
	Count   int       `json:"count"`
}

// Server is the control plane's side.
type Server interface {
	CreateToken(context.Context, *TokenRequest) (*TokenResponse, error)
	Status(context.Context, *Empty) (*StatusResponse, error)
	ProxyConfig(context.Context, *ProxyConfigRequest) (*ProxyConfigResponse, error)
	PeerInvite(context.Context, *PeerInviteRequest) (*PeerInviteResponse, error)
	PeerAccept(context.Context, *PeerAcceptRequest) (*PeerAcceptResponse, error)
	PeerList(context.Context, *PeerRequest) (*PeerListResponse, error)
	PeerSuspend(context.Context, *PeerRequest) (*Empty, error)
	PeerResume(context.Context, *PeerRequest) (*Empty, error)
	PeerRevoke(context.Context, *PeerRequest) (*Empty, error)
	PeerProbe(context.Context, *PeerProbeRequest) (*PeerProbeResponse, error)
	PeerManifest(context.Context, *PeerManifestRequest) (*PeerManifestResponse, error)
	Catalog(context.Context, *PeerRequest) (*CatalogResponse, error)
	Exports(context.Context, *PeerRequest) (*ExportsResponse, error)
	Imports(context.Context, *PeerRequest) (*ImportsResponse, error)
	CertList(context.Context, *Empty) (*CertListResponse, error)
	Check(context.Context, *Empty) (*CheckResponse, error)
	Access(context.Context, *Empty) (*AccessResponse, error)
	AdminCert(context.Context, *AdminCertRequest) (*agentapi.SignResponse, error)
	AdminList(context.Context, *Empty) (*AdminListResponse, error)
	AdminRevoke(context.Context, *AdminRevokeRequest) (*AdminRevokeResponse, error)
	TokenList(context.Context, *Empty) (*TokenListResponse, error)
	TokenCancel(context.Context, *TokenCancelRequest) (*TokenCancelResponse, error)
	RevokeNode(context.Context, *NodeRequest) (*RevokedNode, error)
	CAStatus(context.Context, *Empty) (*CAStatusResponse, error)
	CARotate(context.Context, *CARotateRequest) (*CAStatusResponse, error)
	Events(context.Context, *EventsRequest) (*EventsResponse, error)
}

// Desc registers a Server.
var Desc = grpc.ServiceDesc{
	ServiceName: Service,
	HandlerType: (*Server)(nil),
	Streams: []grpc.StreamDesc{
		rpc.Unary("CreateToken", Server.CreateToken),
		rpc.Unary("Status", Server.Status),
		rpc.Unary("ProxyConfig", Server.ProxyConfig),
		rpc.Unary("PeerInvite", Server.PeerInvite),
		rpc.Unary("PeerAccept", Server.PeerAccept),
		rpc.Unary("PeerList", Server.PeerList),
		rpc.Unary("PeerSuspend", Server.PeerSuspend),
		rpc.Unary("PeerResume", Server.PeerResume),
		rpc.Unary("PeerRevoke", Server.PeerRevoke),
		rpc.Unary("PeerProbe", Server.PeerProbe),
		rpc.Unary("PeerManifest", Server.PeerManifest),
		rpc.Unary("Catalog", Server.Catalog),
		rpc.Unary("Exports", Server.Exports),
		rpc.Unary("Imports", Server.Imports),
		rpc.Unary("CertList", Server.CertList),
		rpc.Unary("Check", Server.Check),
		rpc.Unary("Access", Server.Access),
		rpc.Unary("AdminCert", Server.AdminCert),
		rpc.Unary("AdminList", Server.AdminList),
		rpc.Unary("AdminRevoke", Server.AdminRevoke),
		rpc.Unary("TokenList", Server.TokenList),
		rpc.Unary("TokenCancel", Server.TokenCancel),
		rpc.Unary("RevokeNode", Server.RevokeNode),
		rpc.Unary("CAStatus", Server.CAStatus),
		rpc.Unary("CARotate", Server.CARotate),
		rpc.Unary("Events", Server.Events),
	},
}

// Call makes one call by method name: adminapi.Call[adminapi.Empty, adminapi.StatusResponse](ctx, conn, "Status", &adminapi.Empty{}).
func Call[Req, Resp any](ctx context.Context, conn grpc.ClientConnInterface, method string, req *Req) (*Resp, error) {
	return rpc.Call[Req, Resp](ctx, conn, Service, method, req)
}
