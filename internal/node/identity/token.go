// Package identity manages an agent's identity: the join token that it starts with, the node's key and certificate, and
// the authentication of the control plane.
package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Token is a join token. It redacts itself; Secret is the text to send.
type Token struct {
	text string
	// Node and Role say for which agent the token is.
	Node string
	Role snapshot.Role
	// Fingerprint is the SHA-256 of the control plane's root certificate (DER).
	Fingerprint [sha256.Size]byte
	// Addresses of the control plane.
	Addresses []string
}

// Secret returns the whole token, for the control plane alone.
func (t Token) Secret() string { return t.text }

// String hides the token.
func (Token) String() string { return "[redacted]" }

// MarshalText hides the token.
func (Token) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// ParseToken reads a join token. Errors never contain it.
func ParseToken(text string) (Token, error) {
	text = strings.TrimSpace(text)
	parsed, err := ca.ParseToken(text)
	if err != nil {
		return Token{}, err
	}
	t := Token{text: text, Node: parsed.Node, Role: parsed.Role, Addresses: parsed.Addresses}
	n, err := hex.Decode(t.Fingerprint[:], []byte(parsed.Fingerprint))
	if err != nil || n != sha256.Size {
		return Token{},
			errors.New("the join token names no root fingerprint: make a new one with `isthmus token create --node NAME`")
	}
	return t, nil
}

// LoadToken reads the token in a file that others than its owner and group cannot read.
func LoadToken(path string) (Token, error) {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return Token{},
			fmt.Errorf("there is no join token at %s: `isthmus token create` makes one at the control plane, "+
				"and you carry it here", path)
	}
	if err != nil {
		return Token{}, fmt.Errorf("read join token: %w", err)
	}
	if st.Mode().Perm()&0o007 != 0 {
		return Token{},
			fmt.Errorf("join token file %s is open to every user (mode %04o): run `chmod 600 %s`, and replace the token if others may have read it",
				path, st.Mode().Perm(), path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Token{}, fmt.Errorf("read join token: %w", err)
	}
	t, err := ParseToken(string(b))
	if err != nil {
		return Token{}, fmt.Errorf("join token file %s: %w", path, err)
	}
	return t, nil
}

// PinnedRoot finds the root with the token's fingerprint among the certificates that a server presented.
func (t Token) PinnedRoot(chain []*x509.Certificate) (*x509.Certificate, error) {
	for _, c := range chain {
		if sha256.Sum256(c.Raw) == t.Fingerprint {
			return c, nil
		}
	}
	return nil, errors.New("the control plane does not present the root certificate that the join token names: " +
		"it is another control plane, or someone in between; check control.addresses, and make a new token if the root changed")
}
