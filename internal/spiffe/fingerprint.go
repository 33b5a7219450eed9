package spiffe

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
)

// Fingerprint returns the SHA-256 of a certificate's DER in lower-case hex. People and files identify certificates by
// it.
func Fingerprint(c *x509.Certificate) string { return FingerprintOf(c.Raw) }

// FingerprintOf is Fingerprint for an unparsed certificate.
func FingerprintOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
