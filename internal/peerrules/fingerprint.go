package peerrules

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// MeshFingerprint returns what two administrators compare before their meshes trust each other. It covers everything by
// which a mesh is known to another: trust domain, roots, and the gateways' identities and addresses, independent of
// order. Hex.
func MeshFingerprint(trustDomain string, roots []*x509.Certificate, gatewayIDs, addresses []string) string {
	prints := make([]string, 0, len(roots))
	for _, c := range roots {
		prints = append(prints, spiffe.Fingerprint(c))
	}
	h := sha256.New()
	for _, list := range [][]string{{"isthmus mesh 1", trustDomain}, prints, gatewayIDs, addresses} {
		sorted := slices.Compact(slices.Sorted(slices.Values(list)))
		fmt.Fprintf(h, "%d\n", len(sorted))
		for _, v := range sorted {
			fmt.Fprintf(h, "%d %s\n", len(v), v)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// FingerprintOf returns the MeshFingerprint of a peer as it is trusted now, or "" if no usable roots are known.
func FingerprintOf(peer *v1alpha1.MeshPeer, state snapshot.PeerState) string {
	roots, err := ParseRoots(Roots(peer, state))
	if err != nil {
		return ""
	}
	return MeshFingerprint(peer.Spec.TrustDomain, roots, peer.Spec.GatewayIDs, peer.Spec.GatewayAddresses)
}
