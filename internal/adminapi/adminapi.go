// Package adminapi is the gRPC API between the command line and the control plane. It is served on a Unix socket, whose
// peer credentials are checked, and on port 15012 for administrators' certificates.
package adminapi

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Service is the gRPC service name.
const Service = "isthmus.admin.v1alpha1.Admin"

// Empty is a message without content.
type Empty struct{}

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

// ProxyStatus is the state of one Envoy as seen by the control plane.
type ProxyStatus struct {
	Name      string               `json:"name"`
	Role      snapshot.Role        `json:"role"`
	Connected bool                 `json:"connected"`
	Since     time.Time            `json:"since"`
	Workloads []string             `json:"workloads"`
	Envoy     agentapi.EnvoyState  `json:"envoy"`
	Types     []TypeStatus         `json:"types"`
	Certs     []agentapi.CertState `json:"certs"`
	// Contained describes the containment of the proxy; nil if there is none.
	Contained *Containment `json:"contained,omitempty"`
}

// Containment describes how a proxy's configuration is altered because its Envoy rejects it.
type Containment struct {
	// Held means that the proxy stays on the last configuration that it accepted.
	Held        bool          `json:"held"`
	Searching   bool          `json:"searching"` // the cause is being searched
	Reason      string        `json:"reason,omitempty"`
	Quarantined []Quarantined `json:"quarantined"`
}

// Quarantined is an object that is closed at one proxy until the object changes.
type Quarantined struct {
	Object string    `json:"object"` // "AuthorizationPolicy default/payments"
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// TypeStatus is the state of one xDS resource type at one proxy.
type TypeStatus struct {
	Type      string    `json:"type"` // CDS, EDS, LDS, RDS, SDS
	Resources int       `json:"resources"`
	Sent      string    `json:"sent"`  // version last sent
	Acked     string    `json:"acked"` // version last acknowledged
	SentAt    time.Time `json:"sentAt"`
	AckedAt   time.Time `json:"ackedAt"`
	Nack      string    `json:"nack,omitempty"` // Envoy's message while its last answer was a NACK
}

// ProxyConfigRequest asks for the configuration that was sent to one proxy.
type ProxyConfigRequest struct {
	Name string `json:"name"`
	Type string `json:"type,omitempty"` // CDS, EDS, LDS, RDS, SDS; empty for all
}

// ProxyConfigResponse is the configuration that was sent to one proxy.
type ProxyConfigResponse struct {
	Resources []ProxyResource `json:"resources"`
}

// ProxyResource is one Envoy resource and the objects that it was compiled from.
type ProxyResource struct {
	Type    string         `json:"type"`
	Name    string         `json:"name"`
	Version string         `json:"version"`
	Bytes   int            `json:"bytes"`
	Objects []string       `json:"objects"` // "AuthorizationPolicy default/payments (samples/cards/policy.yaml:3)"
	Config  map[string]any `json:"config,omitempty"`
}

// CertListResponse lists certificates in use.
type CertListResponse struct {
	Certs []NodeCert `json:"certs"`
}

// NodeCert is a certificate in use at a node.
type NodeCert struct {
	Node string `json:"node"`
	agentapi.CertState
}

// CheckResponse lists health checks.
type CheckResponse struct {
	Checks []Check `json:"checks"`
}

// Check is the result of one health check.
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

// AccessEdge is a caller and a destination that policy allows it to call. Rules on methods, paths or addresses may
// restrict the calls further.
type AccessEdge struct {
	From string   `json:"from"` // workload namespace/name, or "peer NAME: SPIFFE ID" for a caller at a peer
	To   string   `json:"to"`   // host:port
	By   []string `json:"by"`   // the objects that allow it
}

// EventsRequest queries the event log. Empty fields match everything.
type EventsRequest struct {
	Since  time.Time `json:"since,omitzero"`
	Actor  string    `json:"actor,omitempty"`  // substring
	Action string    `json:"action,omitempty"` // substring
	Limit  int       `json:"limit,omitempty"`  // number of latest events, and of kinds of refusals; 0: 100
}

// EventsResponse lists events, oldest first.
type EventsResponse struct {
	Events []Event `json:"events"`
}

// Event is an action, or a number of identical refusals.
type Event struct {
	Seq     uint64    `json:"seq,omitempty"` // not set for refusals, which are counted
	Time    time.Time `json:"time"`
	Actor   string    `json:"actor"`
	From    string    `json:"from"`
	Action  string    `json:"action"`
	Object  string    `json:"object"`
	Outcome string    `json:"outcome"` // ok, failed, refused; begun: the outcome is unknown
	Detail  string    `json:"detail,omitempty"`
	First   time.Time `json:"first"` // time of the first of identical refusals; Time is the last
	Count   int       `json:"count"`
}

// Server is implemented by the control plane.
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
	Catalogue(context.Context, *PeerRequest) (*CatalogueResponse, error)
	Exports(context.Context, *PeerRequest) (*ExportsResponse, error)
	Imports(context.Context, *PeerRequest) (*ImportsResponse, error)
	ImportDraft(context.Context, *ImportDraftRequest) (*DraftResponse, error)
	ExportDraft(context.Context, *ExportDraftRequest) (*DraftResponse, error)
	PeerTerms(context.Context, *PeerTermsRequest) (*PeerTermsResponse, error)
	CertList(context.Context, *Empty) (*CertListResponse, error)
	Check(context.Context, *Empty) (*CheckResponse, error)
	Access(context.Context, *Empty) (*AccessResponse, error)
	Inventory(context.Context, *Empty) (*InventoryResponse, error)
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
		rpc.Unary("Catalogue", Server.Catalogue),
		rpc.Unary("Exports", Server.Exports),
		rpc.Unary("Imports", Server.Imports),
		rpc.Unary("ImportDraft", Server.ImportDraft),
		rpc.Unary("ExportDraft", Server.ExportDraft),
		rpc.Unary("PeerTerms", Server.PeerTerms),
		rpc.Unary("CertList", Server.CertList),
		rpc.Unary("Check", Server.Check),
		rpc.Unary("Access", Server.Access),
		rpc.Unary("Inventory", Server.Inventory),
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

// Call makes one call by method name: adminapi.Call[adminapi.Empty, adminapi.StatusResponse](ctx, conn, "Status",
// &adminapi.Empty{}).
func Call[Req, Resp any](ctx context.Context, conn grpc.ClientConnInterface, method string, req *Req) (*Resp, error) {
	return rpc.Call[Req, Resp](ctx, conn, Service, method, req)
}
