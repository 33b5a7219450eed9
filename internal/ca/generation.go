package ca

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
)

// A serial number encodes the generation under which a certificate was issued: a first byte that marks the format,
// eight bytes of generation, eight random bytes (RFC 5280 §4.1.2.2 allows 20). A node gets a new generation with each
// join, an administrator with each certificate. Certificates for a node's workloads carry the node's generation. A
// verifier compares it with the active generation.
const (
	serialForm     = 0x40 // positive, no leading zero byte
	generationSize = 8
	serialSize     = 1 + 2*generationSize
)

// NewGeneration returns a new unique generation, 16 hex digits.
func NewGeneration() string {
	b := make([]byte, generationSize)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Generation returns the generation encoded in a certificate's serial number, or "" if the serial number has another
// format.
func Generation(c *x509.Certificate) string {
	b := c.SerialNumber.Bytes()
	if len(b) != serialSize || b[0] != serialForm {
		return ""
	}
	return hex.EncodeToString(b[1 : 1+generationSize])
}

// newLeafSerial returns a random serial number that carries a generation.
func newLeafSerial(generation string) (*big.Int, error) {
	g, err := hex.DecodeString(generation)
	if err != nil || len(g) != generationSize {
		return nil, fmt.Errorf("generation %q: it has %d hex digits", generation, 2*generationSize)
	}
	b := make([]byte, serialSize)
	b[0] = serialForm
	copy(b[1:], g)
	rand.Read(b[1+generationSize:]) // never fails
	return new(big.Int).SetBytes(b), nil
}
