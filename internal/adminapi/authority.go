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
	Identities []string         `json:"identities"`          // see grant.Grant
	Workloads  []grant.Workload `json:"workloads,omitempty"` // see grant.Grant
	// Addresses: see grant.Grant. Default: private addresses for a node; for a gateway, the addresses that it first
	// reports.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	TTL       time.Duration  `json:"ttl"`
}

// Grant returns the grant that the token will carry.
func (r *TokenRequest) Grant() grant.Grant {
	return grant.Grant{Identities: r.Identities, Workloads: r.Workloads, Addresses: r.Addresses}
}

// TokenResponse contains a secret. Show it once and never log it.
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

// TokenCancelRequest selects a join token, or all open tokens of one creator. Exactly one field is set.
type TokenCancelRequest struct {
	ID     string `json:"id,omitempty"`
	MadeBy string `json:"madeBy,omitempty"` // as in TokenInfo
}

// TokenCancelResponse returns the number of cancelled tokens.
type TokenCancelResponse struct {
	Cancelled int `json:"cancelled"`
	Ended
}

// NodeRequest names a node or gateway.
type NodeRequest struct {
	Node string `json:"node"`
}

// RevokedNode lists the remaining risk of a revoked node: workload certificates that other workloads accept until they
// expire or their root is replaced.
type RevokedNode struct {
	Node         string        `json:"node"`
	Certificates []RevokedCert `json:"certificates"`
	Ended
}

// Ended is the result of a revocation or cancellation. It is in force in any case.
type Ended struct {
	// Unwritten says why it is not stored yet, so that a restart would forget it. The write is retried until it
	// succeeds.
	Unwritten string `json:"unwritten,omitempty"`
}

// RevokedCert is an identity and the expiry of the node's last certificate for it.
type RevokedCert struct {
	SPIFFEID string    `json:"spiffeID"`
	NotAfter time.Time `json:"notAfter"`
}

// AdminCertRequest asks for an administrator certificate.
type AdminCertRequest struct {
	Name string        `json:"name"`
	CSR  []byte        `json:"csr"`
	TTL  time.Duration `json:"ttl,omitempty"` // at most a day; 0: the default
}

// AdminListResponse lists administrator certificates.
type AdminListResponse struct {
	Admins []AdminCert `json:"admins"`
}

// AdminCert is one administrator certificate.
type AdminCert struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Serial   string    `json:"serial"` // hex
	Created  time.Time `json:"created"`
	MadeBy   string    `json:"madeBy"`
	NotAfter time.Time `json:"notAfter"`
	Revoked  time.Time `json:"revoked,omitzero"`
}

// AdminRevokeRequest selects an administrator, or one certificate by its ID. Exactly one field is set.
type AdminRevokeRequest struct {
	Name string `json:"name,omitempty"`
	ID   string `json:"id,omitempty"`
}

// AdminRevokeResponse lists what was revoked.
type AdminRevokeResponse struct {
	Admins []AdminCert `json:"admins"`
	Ended
}

// CARotateRequest starts a root rotation or controls the one in progress.
type CARotateRequest struct {
	Force  bool `json:"force,omitempty"`  // do not wait for the remaining participants of the current step
	Cancel bool `json:"cancel,omitempty"` // withdraw the new root, if it has not signed yet
}

// CAStatusResponse is the state of the certificate authority.
type CAStatusResponse struct {
	TrustDomain string      `json:"trustDomain"`
	Operator    bool        `json:"operator"` // the root is the operator's own
	Roots       []CARoot    `json:"roots"`    // trusted roots, the signing one first
	Rotation    *CARotation `json:"rotation,omitempty"`
}

// CARoot is one root that the mesh trusts.
type CARoot struct {
	SHA256   string    `json:"sha256"`
	NotAfter time.Time `json:"notAfter"`
	Signs    bool      `json:"signs"`
}

// CARotation is the root rotation in progress, or the last one.
type CARotation struct {
	Step      string    `json:"step"` // prepared, distributed, activated, drained, done, cancelled
	Since     time.Time `json:"since"`
	Began     time.Time `json:"began"`
	OldSHA256 string    `json:"oldSHA256"`
	NewSHA256 string    `json:"newSHA256"`
	Waits     []CAWait  `json:"waits"`
	Passed    []string  `json:"passed"` // participants that --force did not wait for
	// Expected is when the step ends at the latest. Zero if that depends on a participant that is away.
	Expected time.Time `json:"expected"`
	Error    string    `json:"error,omitempty"` // why the last step failed; it is retried
}

// CAWait is a participant that a rotation waits for.
type CAWait struct {
	What  string    `json:"what"` // node, gateway, peer, invitation, administrator, control plane
	Name  string    `json:"name"`
	Why   string    `json:"why"`
	Until time.Time `json:"until"` // when the wait ends by itself; zero: never
}
