package ca

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
)

// ServerTLS returns a TLS 1.3 configuration for a server with identity s. A client may connect without a certificate,
// so that a node can join: every other method must check PeerID. A certificate that is presented must belong to this
// mesh.
func (a *Authority) ServerTLS(s *Source, nextProtos ...string) *tls.Config {
	td := a.cfg.TrustDomain
	base := baseTLS(a.now)
	base.NextProtos = nextProtos
	base.GetCertificate = s.GetCertificate
	base.ClientAuth = tls.VerifyClientCertIfGiven
	base.ClientCAs = a.mat.Load().pool
	base.VerifyConnection = func(c tls.ConnectionState) error {
		if len(c.PeerCertificates) == 0 {
			return nil
		}
		id, err := PeerID(c)
		if err == nil && !id.MemberOf(td) {
			err = fmt.Errorf("client %s is not of trust domain %s", id, td.Name())
		}
		return err
	}
	outer := base.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := base.Clone()
		c.ClientCAs = a.mat.Load().pool // the current roots
		return c, nil
	}
	return outer
}

// Trusts reports whether a verified chain leads to a root that the mesh trusts now.
func (a *Authority) Trusts(chains [][]*x509.Certificate) bool {
	roots := a.mat.Load().roots
	return slices.ContainsFunc(chains, func(chain []*x509.Certificate) bool {
		return slices.ContainsFunc(roots, chain[len(chain)-1].Equal)
	})
}

// PeerID returns the SPIFFE ID that the client of a server connection proved.
func PeerID(c tls.ConnectionState) (spiffe.ID, error) {
	if len(c.VerifiedChains) == 0 {
		return spiffe.ID{}, errors.New("the client showed no certificate")
	}
	return spiffe.LeafID(c.VerifiedChains[0][0])
}

// Client configures how a client authenticates its server: by roots and exact SPIFFE IDs, never by host name.
type Client struct {
	Roots       func() []byte                                               // PEM, read for every handshake
	Certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error) // nil: none
	Expect      []spiffe.ID                                                 // the server must be one of these
	Now         func() time.Time                                            // default time.Now
}

// TLS returns the TLS 1.3 configuration of the client.
func (c Client) TLS() *tls.Config {
	cfg := clientTLS(c.Now)
	cfg.GetClientCertificate = c.Certificate
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		pool, err := poolOf(c.Roots())
		if err != nil {
			return err
		}
		id, err := verify(s.PeerCertificates, pool, cfg.Time(), x509.ExtKeyUsageServerAuth)
		if err == nil && !slices.Contains(c.Expect, id) {
			err = fmt.Errorf("the server is %s, expected was %v", id, c.Expect)
		}
		return err
	}
	return cfg
}

// ClientTLS returns a TLS 1.3 configuration for a client with identity s. The server must be of the same mesh and have
// one of the expected IDs.
func (a *Authority) ClientTLS(s *Source, expect ...spiffe.ID) *tls.Config {
	return Client{Roots: a.Roots, Certificate: s.GetClientCertificate, Expect: expect, Now: a.now}.TLS()
}

// PinnedTLS returns a TLS 1.3 configuration for a client that knows only the fingerprint of the mesh's root (SHA-256,
// hex). The server must include that root in its chain and be the mesh's control plane.
func PinnedTLS(fingerprint string, now func() time.Time) *tls.Config {
	cfg := clientTLS(now)
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		at := slices.IndexFunc(s.PeerCertificates,
			func(c *x509.Certificate) bool { return spiffe.Fingerprint(c) == fingerprint })
		if at < 1 { // the leaf cannot be the root
			return fmt.Errorf("the server does not show the root with SHA-256 %s: it belongs to another mesh, or the mesh has a new root; make a new token", fingerprint)
		}
		pool := x509.NewCertPool()
		pool.AddCert(s.PeerCertificates[at])
		id, err := verify(s.PeerCertificates, pool, cfg.Time(), x509.ExtKeyUsageServerAuth)
		if err == nil && id != spiffe.Control(id.TrustDomain()) {
			err = fmt.Errorf("the server is %s, not the control plane", id)
		}
		return err
	}
	return cfg
}

func baseTLS(now func() time.Time) *tls.Config {
	if now == nil {
		now = time.Now
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, Time: now}
}

func clientTLS(now func() time.Time) *tls.Config {
	cfg := baseTLS(now)
	cfg.InsecureSkipVerify = true // host names are not checked; VerifyConnection does all verification
	return cfg
}

// verify checks a chain (leaf first) and returns its SPIFFE ID.
func verify(chain []*x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) (spiffe.ID, error) {
	if len(chain) == 0 {
		return spiffe.ID{}, errors.New("no certificate was shown")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return spiffe.ID{}, fmt.Errorf("verify certificate: %w", err)
	}
	return spiffe.LeafID(chain[0])
}

func poolOf(roots []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	n := 0
	for block, rest := pem.Decode(roots); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parse root %d: %w", n+1, err)
		}
		pool.AddCert(c)
		n++
	}
	if n == 0 {
		return nil, errors.New("there are no roots to trust")
	}
	return pool, nil
}
