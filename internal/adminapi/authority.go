package adminapi

import (
	"net/netip"
	"time"

	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
)

// TokenRequest asks for a join token.
type TokenRequest struct {
	Node       string           `json:"node"`
	Role       snapshot.Role    `json:"role"`                // node or gateway
	Identities []string         `json:"identities"`          // what the node may host: see grant.Grant
	Workloads  []grant.Workload `json:"workloads,omitempty"` // likewise
	// likewise; none: the private ones, or those that a gateway first names
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	TTL       time.Duration  `json:"ttl"`
}

// Grant returns what the token shall grant.
func (r *TokenRequest) Grant() grant.Grant {
	return grant.Grant{Identities: r.Identities, Workloads: r.Workloads, Addresses: r.Addresses}
}

// TokenResponse carries a secret: print it once, log it never.
type TokenResponse struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
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

// RevokedNode is what a node that was revoked can still do harm with: the certificates that it got for its workloads,
// which other workloads accept until they end or the root that they lead to is replaced.
type RevokedNode struct {
	Node         string        `json:"node"`
	Certificates []RevokedCert `json:"certificates"`
	Ended
}

// Ended is how a revocation or cancellation went, which is in force in any case.
type Ended struct {
	// Unwritten is why it is not in the state yet, so that a restart would forget it. It is tried until it is.
	Unwritten string `json:"unwritten,omitempty"`
}

// RevokedCert is an identity, and when the last certificate of it ends that the node got.
type RevokedCert struct {
	SPIFFEID string    `json:"spiffeID"`
	NotAfter time.Time `json:"notAfter"`
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
