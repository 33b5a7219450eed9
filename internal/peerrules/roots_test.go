package peerrules

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
)

// A root whose key anybody could break, or whose signatures take seconds to check, vouches for nobody.
func TestCheckRootLooksAtTheKey(t *testing.T) {
	long := func(bits int) *rsa.PublicKey {
		return &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), bits-1, 1), E: 65537}
	}
	for name, tt := range map[string]struct {
		key  any
		says string
	}{
		"RSA 1024":   {long(1024), "its RSA key has 1024 bits"},
		"RSA 2048":   {long(2048), ""},
		"RSA 8192":   {long(8192), ""},
		"RSA 700000": {long(700_000), "its RSA key has 700000 bits"},
		"P-224":      {&ecdsa.PublicKey{Curve: elliptic.P224()}, "its key is of curve P-224"},
		"P-256":      {&ecdsa.PublicKey{Curve: elliptic.P256()}, ""},
		"P-521":      {&ecdsa.PublicKey{Curve: elliptic.P521()}, ""},
		"Ed25519":    {ed25519.PublicKey{}, ""},
		"none":       {nil, "neither ECDSA, RSA nor Ed25519"},
	} {
		err := CheckRoot(&x509.Certificate{BasicConstraintsValid: true, IsCA: true, PublicKey: tt.key})
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", name, err, tt.says)
		}
	}
}
