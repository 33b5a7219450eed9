package ca

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
)

// A certificate's serial number says under which admission it was issued: a first byte that marks the form, eight
// bytes of generation, eight random bytes (RFC 5280 §4.1.2.2 allows 20). Like all of the certificate it is signed. A
// node has a new generation each time that it joins, an administrator with each certificate; who believes a
// certificate compares its generation with the one that is active now. The certificates that a node gets for its
// workloads carry the node's.
const (
	serialForm     = 0x40 // positive, and without a leading zero
	generationSize = 8
	serialSize     = 1 + 2*generationSize
)

// NewGeneration is a generation that nobody ever had, 16 hex digits.
func NewGeneration() string {
	b := make([]byte, generationSize)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// Generation is the one under which a certificate was issued, empty when its serial number is of another form.
func Generation(c *x509.Certificate) string {
	b := c.SerialNumber.Bytes()
	if len(b) != serialSize || b[0] != serialForm {
		return ""
	}
	return hex.EncodeToString(b[1 : 1+generationSize])
}

// newLeafSerial is a random serial number that carries a generation.
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
