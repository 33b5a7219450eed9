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

// Attest trades a join token for a node's identity. A certificate request that is no good does not use the token up.
func (a *Authority) Attest(ctx context.Context, token string, csr []byte, from string) (Attestation, error) {
	pub, err := requestKey(csr)
	if err != nil {
		return Attestation{}, err
	}
	grant, err := a.Redeem(ctx, token, from)
	if err != nil {
		return Attestation{}, err
	}
	id, err := spiffe.Node(a.cfg.TrustDomain, grant.Node)
	if err != nil {
		return Attestation{}, fmt.Errorf("name node %q: %w", grant.Node, err)
	}
	n := state.Node{Node: snapshot.Node{Name: grant.Node, Role: grant.Role}, Identities: grant.Identities, Attested: a.now()}
	if err := a.cfg.Store.AttestNode(ctx, n); err != nil {
		return Attestation{}, err
	}
	chain, _, err := a.issue(ctx, leaf{pub: pub, id: id, ttl: a.cfg.LeafTTL, node: grant.Node})
	if err != nil {
		return Attestation{}, err
	}
	return Attestation{TokenGrant: grant, SVID: id, Chain: chain, Roots: a.Roots()}, nil
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
