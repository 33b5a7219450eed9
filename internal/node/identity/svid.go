package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"time"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/spiffe"
)

// SVID is a certificate chain with its private key and the roots that came with it. It redacts itself.
type SVID struct {
	ID    spiffe.ID
	Chain []*x509.Certificate // leaf first, without the root
	Roots []*x509.Certificate
	// Received is when the chain came; the half-life counts from here, because NotBefore is backdated.
	Received time.Time
	key      *ecdsa.PrivateKey
	under    string // SHA-256 of the root that the chain leads to, hex
}

// NewKey makes a private key; it never leaves this process except into its own Envoy, and into the workload that it is
// of.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make private key: %w", err)
	}
	return key, nil
}

// NewRequest makes a private key and a certificate request for it. The request claims no name, since none would be
// believed.
func NewRequest() (key *ecdsa.PrivateKey, csr []byte, err error) {
	if key, err = NewKey(); err != nil {
		return nil, nil, err
	}
	if csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key); err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	return key, csr, nil
}

// NewSVID checks what the control plane sent: that it fits the key, and that the chain leads to one of the roots.
func NewSVID(key *ecdsa.PrivateKey, chainDER [][]byte, rootsPEM []byte, now time.Time) (*SVID, error) {
	chain, err := parseChain(chainDER)
	if err != nil {
		return nil, err
	}
	roots, err := ParseRoots(rootsPEM)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(chain[0].PublicKey) {
		return nil, errors.New("the certificate is for another key than was asked for")
	}
	id, err := spiffe.LeafID(chain[0])
	if err != nil {
		return nil, err
	}
	s := &SVID{ID: id, Chain: chain, Roots: roots, Received: now, key: key}
	root, err := s.root(now)
	if err != nil {
		return nil, err
	}
	s.under = spiffe.Fingerprint(root)
	return s, nil
}

// WithRoots returns the same certificate beside other roots; it must lead to one of them.
func (s *SVID) WithRoots(roots []*x509.Certificate) (*SVID, error) {
	next := *s
	next.Roots = roots
	root, err := next.root(s.Received)
	if err != nil {
		return nil, err
	}
	next.under = spiffe.Fingerprint(root)
	return &next, nil
}

func parseChain(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 {
		return nil, errors.New("the certificate chain is empty")
	}
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("parse certificate %d of the chain: %w", i, err)
		}
		chain[i] = c
	}
	return chain, nil
}

// ParseRoots reads certificates in PEM, at least one.
func ParseRoots(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse root certificate: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no root certificates were sent")
	}
	return certs, nil
}

// root returns the root that the chain leads to.
func (s *SVID) root(now time.Time) (*x509.Certificate, error) {
	intermediates := x509.NewCertPool()
	for _, c := range s.Chain[1:] {
		intermediates.AddCert(c)
	}
	chains, err := s.Chain[0].Verify(x509.VerifyOptions{
		Roots: s.RootPool(), Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("verify the certificate that was issued: %w", err)
	}
	return chains[0][len(chains[0])-1], nil
}

// Leaf returns the certificate itself.
func (s *SVID) Leaf() *x509.Certificate { return s.Chain[0] }

// RootPool returns the root pool of the mesh, as sent with this certificate.
func (s *SVID) RootPool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range s.Roots {
		pool.AddCert(c)
	}
	return pool
}

// TLS returns the certificate for crypto/tls.
func (s *SVID) TLS() *tls.Certificate {
	c := &tls.Certificate{PrivateKey: s.key, Leaf: s.Leaf()}
	for _, cert := range s.Chain {
		c.Certificate = append(c.Certificate, cert.Raw)
	}
	return c
}

// ChainPEM returns the chain, with the root at its end when asked.
func (s *SVID) ChainPEM(withRoot bool) ([]byte, error) {
	certs := s.Chain
	if withRoot {
		// At the time of issue: an expired certificate still has its root.
		root, err := s.root(s.Received)
		if err != nil {
			return nil, err
		}
		certs = append(certs[:len(certs):len(certs)], root)
	}
	return encodePEM(certs), nil
}

// KeyDER returns the private key, PKCS #8, for the workload that it is of.
func (s *SVID) KeyDER() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return der, nil
}

// KeyPEM returns the private key, for this agent's own Envoy.
func (s *SVID) KeyPEM() ([]byte, error) {
	der, err := s.KeyDER()
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func encodePEM(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

// String hides the key.
func (s *SVID) String() string { return s.ID.String() + " [key redacted]" }

// MarshalText hides the key.
func (s *SVID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// State returns what the agent reports of the certificate.
func (s *SVID) State() agentapi.CertState {
	leaf := s.Leaf()
	return agentapi.CertState{
		SPIFFEID: s.ID.String(), Serial: serial(leaf.SerialNumber), Fingerprint: spiffe.Fingerprint(leaf),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(), Root: s.under,
	}
}

func serial(n *big.Int) string { return fmt.Sprintf("%x", n) }

// RenewAt returns when to ask for the next certificate: at half of what was left when it came, moved by jitter (-1 to
// 1) by up to a tenth of that.
func (s *SVID) RenewAt(jitter float64) time.Time {
	life := s.Leaf().NotAfter.Sub(s.Received)
	return s.Received.Add(life/2 + time.Duration(jitter*float64(life)/20))
}

// Expired at now.
func (s *SVID) Expired(now time.Time) bool { return now.After(s.Leaf().NotAfter) }
