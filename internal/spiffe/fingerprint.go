package spiffe

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
)

// Fingerprint is the SHA-256 of a certificate's DER, lower-case hex. People and files name certificates by it.
func Fingerprint(c *x509.Certificate) string { return FingerprintOf(c.Raw) }

// FingerprintOf is the Fingerprint of a certificate that is not parsed.
func FingerprintOf(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
