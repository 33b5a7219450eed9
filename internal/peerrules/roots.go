package peerrules

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// MaxRoots limits the roots of one trust domain.
const MaxRoots = 16

func parseRoots(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	rest := bytes.TrimSpace(text)
	for len(rest) > 0 {
		block, after := pem.Decode(rest)
		if block == nil {
			return nil, errors.New("not PEM: expected -----BEGIN CERTIFICATE-----")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q where only certificates belong", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		if err := CheckRoot(c); err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certs)+1, err)
		}
		if certs = append(certs, c); len(certs) > MaxRoots {
			return nil, fmt.Errorf("more than %d certificates", MaxRoots)
		}
		rest = bytes.TrimSpace(after)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate")
	}
	return certs, nil
}

// CheckRoot returns an error if a certificate must not be a trust domain's root.
func CheckRoot(c *x509.Certificate) error {
	if !c.BasicConstraintsValid || !c.IsCA {
		return errors.New("not a certificate authority (basicConstraints CA:TRUE is missing)")
	}
	if c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0 {
		return errors.New("its key usage does not let it sign certificates")
	}
	return checkKey(c.PublicKey)
}

// checkKey refuses weak keys and keys whose signatures are slow to verify.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return fmt.Errorf("its key is of curve %s: P-256 is the least", k.Curve.Params().Name)
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n < 2048 || n > 8192 {
			return fmt.Errorf("its RSA key has %d bits: between 2048 and 8192 are taken", n)
		}
	case ed25519.PublicKey:
	default:
		return errors.New("its key is neither ECDSA, RSA nor Ed25519")
	}
	return nil
}

// KeyID returns the SHA-256 of a certificate's public key. Two certificates with the same key are one authority.
func KeyID(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// EncodeRoots encodes certificates as PEM.
func EncodeRoots(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a bytes.Buffer does not fail
	}
	return b.Bytes()
}

// lastValid returns the end of the longest-lived currently valid certificate, or zero if none is valid.
func lastValid(certs []*x509.Certificate, now time.Time) time.Time {
	var last time.Time
	for _, c := range certs {
		if !now.Before(c.NotBefore) && now.Before(c.NotAfter) && c.NotAfter.After(last) {
			last = c.NotAfter
		}
	}
	return last
}

// learnedPrefix starts the line above learned roots. The anchor follows it.
const learnedPrefix = "# isthmus first trust "

// Learned encodes roots for PeerState: PEM below a line that names the first trust that they grew from.
func Learned(peer *v1alpha1.MeshPeer, certs []*x509.Certificate) []byte {
	return append([]byte(learnedPrefix+Anchor(peer)+"\n"), EncodeRoots(certs)...)
}

// Adopted reports whether a peer's learned roots grew from the first trust that its MeshPeer states now.
func Adopted(peer *v1alpha1.MeshPeer, state snapshot.PeerState) bool {
	anchor, _, ok := learned(state.Roots)
	return ok && anchor == Anchor(peer)
}

// SameMesh reports whether a MeshPeer in a file means the mesh of the peering by token of that name: the same trust
// domain, and no root that is not trusted already.
func SameMesh(file, made *v1alpha1.MeshPeer, state snapshot.PeerState) bool {
	known := append(keyIDs([]byte(made.Spec.Bundle.Inline)), keyIDs(Roots(made, state))...)
	stated := keyIDs([]byte(file.Spec.Bundle.Inline))
	return file.Spec.TrustDomain == made.Spec.TrustDomain && len(stated) > 0 &&
		!slices.ContainsFunc(stated, func(id string) bool { return !slices.Contains(known, id) })
}

func learned(text []byte) (anchor string, roots []byte, ok bool) {
	line, roots, ok := bytes.Cut(text, []byte("\n"))
	a, marked := bytes.CutPrefix(line, []byte(learnedPrefix))
	return string(a), roots, ok && marked
}

// Anchor identifies the first trust that a MeshPeer states: its trust domain with its roots or fingerprint, independent
// of order and layout. Learned roots count only while it stays the same.
func Anchor(peer *v1alpha1.MeshPeer) string {
	parts := []string{peer.Spec.TrustDomain, peer.Spec.Bundle.Fingerprint}
	certs, err := ParseRoots([]byte(peer.Spec.Bundle.Inline))
	if err != nil {
		parts = append(parts, peer.Spec.Bundle.Inline)
	}
	prints := make([]string, 0, len(certs))
	for _, c := range certs {
		prints = append(prints, spiffe.Fingerprint(c))
	}
	slices.Sort(prints)
	sum := sha256.Sum256([]byte(strings.Join(append(parts, prints...), "\x00")))
	return hex.EncodeToString(sum[:])
}
