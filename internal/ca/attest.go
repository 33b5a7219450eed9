package ca

import (
	"context"
	"fmt"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// Attestation is the result of a node's join: its grant and its first certificate.
type Attestation struct {
	TokenGrant
	SVID  spiffe.ID
	Chain [][]byte // DER, leaf first, without the root
	Roots []byte   // PEM
}

// Attest exchanges a join token for a node identity. The token's ID becomes the node's generation. An invalid
// certificate request does not use up the token. The grant is returned even with an error if the token was used, since
// the node's record may have changed.
func (a *Authority) Attest(ctx context.Context, token string, csr []byte, from string) (Attestation, error) {
	pub, err := requestKey(csr)
	if err != nil {
		return Attestation{}, err
	}
	granted, err := a.Redeem(ctx, token, from)
	if err != nil {
		return Attestation{}, err
	}
	at := Attestation{TokenGrant: granted}
	at.SVID, err = spiffe.Node(a.cfg.TrustDomain, granted.Node)
	if err != nil {
		return at, fmt.Errorf("name node %q: %w", granted.Node, err)
	}
	n := state.Node{
		Node: snapshot.Node{Name: granted.Node, Role: granted.Role}, Generation: granted.ID, Grant: granted.Grant,
		Attested: a.now(),
	}
	if err := a.cfg.Store.AttestNode(ctx, n); err != nil {
		return at, err
	}
	at.Chain, _, err = a.issue(ctx,
		leaf{pub: pub, id: at.SVID, ttl: a.cfg.LeafTTL, Holder: Holder{Node: granted.Node, Generation: granted.ID}})
	at.Roots = a.Roots()
	return at, err
}
