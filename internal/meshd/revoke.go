package meshd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// maxRevoked bounds the certificates that are remembered of one revoked node.
const maxRevoked = 10_000

// revoke shuts a node out: from now on nothing of it is believed, and what it has open ends.
func (a *agents) revoke(ctx context.Context, node string) error {
	if _, err := a.d.db.Node(ctx, node); err != nil {
		return err
	}
	if err := a.rememberCertificates(ctx, node); err != nil {
		return err
	}
	err := a.d.db.RevokeNode(ctx, node, a.d.now())
	a.standings.forget(node)
	if err != nil {
		return err
	}
	err = a.rememberCertificates(ctx, node) // and those that were being signed
	a.standings.forget(node)
	if err != nil {
		return err
	}
	a.d.store.Forget(node)
	for _, name := range append(a.d.xds.Known(), node) {
		if own, _, _ := strings.Cut(name, "/"); own == node { // its workloads' own proxies too
			a.d.xds.Disconnect(name)
		}
	}
	a.remember(node, nil)
	a.mu.Lock()
	defer a.mu.Unlock()
	if ag := a.known[node]; ag != nil {
		ag.cut(errRevoked)
	}
	a.log.Warn("node revoked", "node", node)
	return nil
}

// rememberCertificates keeps which certificates a node has that is revoked: when a node of its name joins again, these must
// not come back to life.
func (a *agents) rememberCertificates(ctx context.Context, node string) error {
	id, err := spiffe.Node(a.d.authority.TrustDomain(), node)
	if err != nil {
		return err
	}
	certs, err := a.d.db.Certs(ctx, state.CertFilter{Node: node, SPIFFEID: id.String(), Limit: maxRevoked})
	if err != nil {
		return err
	}
	var all []byte
	for _, c := range certs {
		sum, err := hex.DecodeString(c.Fingerprint)
		if err != nil {
			return fmt.Errorf("fingerprint of certificate %s: %w", c.Serial, err)
		}
		all = append(all, sum...)
	}
	return a.d.db.PutBlob(ctx, state.Blob{Name: revokedBlob(node), Cert: all, Created: a.d.now()})
}

// outlasting are the identities whose certificates a revoked node still has, beside its own, which is refused by itself.
func (a *agents) outlasting(ctx context.Context, node string) ([]adminapi.RevokedCert, error) {
	certs, err := a.d.db.Certs(ctx, state.CertFilter{Node: node, ValidAt: a.d.now(), Limit: maxRevoked})
	if err != nil {
		return nil, err
	}
	last := map[string]time.Time{}
	for _, c := range certs {
		id, err := spiffe.Parse(c.SPIFFEID)
		if _, own := spiffe.NodeName(id); err == nil && !own {
			last[c.SPIFFEID] = later(last[c.SPIFFEID], c.NotAfter)
		}
	}
	out := []adminapi.RevokedCert{}
	for _, id := range slices.Sorted(maps.Keys(last)) {
		out = append(out, adminapi.RevokedCert{SPIFFEID: id, NotAfter: last[id]})
	}
	return out, nil
}

func revokedBlob(node string) string { return "revoked/" + node }

// refuseRevoked refuses a certificate that a node had when it was revoked.
func refuseRevoked(ctx context.Context, st standing) error {
	if len(st.revoked) == 0 {
		return nil
	}
	sum, err := leafSum(ctx)
	if err != nil {
		return err
	}
	if st.revoked[sum] {
		return status.Errorf(codes.PermissionDenied, "this certificate of node %s was revoked", st.Name)
	}
	return nil
}

// leafSum is the SHA-256 of the certificate that a connection's client showed.
func leafSum(ctx context.Context) (sum [sha256.Size]byte, err error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return sum, status.Error(codes.Unauthenticated, "no connection")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return sum, status.Error(codes.Unauthenticated, "a client certificate of this mesh is needed")
	}
	return sha256.Sum256(info.State.VerifiedChains[0][0].Raw), nil
}
