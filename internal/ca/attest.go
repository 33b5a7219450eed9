package ca

import (
	"context"
	"fmt"
	"slices"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// Attestation is a node that joined, and its first certificate.
type Attestation struct {
	TokenGrant
	SVID  spiffe.ID
	Chain [][]byte // DER, leaf first, without the root
	Roots []byte   // PEM
}

// Attest trades a join token for a node's identity. A certificate request that is no good does not use the token up. What the
// token granted is returned even when something failed after it was used up: the node's record may have changed.
func (a *Authority) Attest(ctx context.Context, token string, csr []byte, from string) (Attestation, error) {
	pub, err := requestKey(csr)
	if err != nil {
		return Attestation{}, err
	}
	grant, err := a.Redeem(ctx, token, from)
	if err != nil {
		return Attestation{}, err
	}
	at := Attestation{TokenGrant: grant}
	at.SVID, err = spiffe.Node(a.cfg.TrustDomain, grant.Node)
	if err != nil {
		return at, fmt.Errorf("name node %q: %w", grant.Node, err)
	}
	n := state.Node{Node: snapshot.Node{Name: grant.Node, Role: grant.Role}, Identities: grant.Identities, Attested: a.now()}
	if err := a.cfg.Store.AttestNode(ctx, n); err != nil {
		return at, err
	}
	at.Chain, _, err = a.issue(ctx, leaf{pub: pub, id: at.SVID, ttl: a.cfg.LeafTTL, node: grant.Node})
	at.Roots = a.Roots()
	return at, err
}

// Granted answers whether a node's identities let it host a service account: by its exact name "<namespace>/<service
// account>", by "<namespace>/*", or by "*", which means every namespace but the gateways'.
func Granted(identities []string, namespace, serviceAccount string) bool {
	if namespace == "" || serviceAccount == "" || serviceAccount == "*" {
		return false
	}
	return slices.Contains(identities, namespace+"/"+serviceAccount) ||
		slices.Contains(identities, namespace+"/*") ||
		namespace != spiffe.SystemNamespace && slices.Contains(identities, "*")
}
