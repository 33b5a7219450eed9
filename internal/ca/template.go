package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"net/url"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/times"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	// CA certificates are backdated further than leaves, so that the mesh survives a clock that is set back.
	rootBackdate         = 48 * time.Hour
	intermediateBackdate = time.Hour
	leafBackdate         = time.Minute
)

// makeRoot makes a self-signed root and its key.
func makeRoot(cfg Config, now time.Time) (*x509.Certificate, crypto.Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	t := caTemplate(cfg.TrustDomain, "Isthmus root ")
	t.NotBefore, t.NotAfter = now.Add(-rootBackdate-cfg.Skew), now.Add(rootLife)
	cert, err := signCA(t, t, key.Public(), key)
	return cert, key, err
}

func intermediateTemplate(cfg Config, root *x509.Certificate, now time.Time) *x509.Certificate {
	t := caTemplate(cfg.TrustDomain, "Isthmus intermediate ")
	t.MaxPathLenZero = true
	t.NotBefore, t.NotAfter = now.Add(-intermediateBackdate-cfg.Skew),
		times.Earlier(now.Add(cfg.IntermediateTTL), root.NotAfter)
	return t
}

// caTemplate puts the serial number into the subject, so that subjects are unique.
func caTemplate(td spiffe.TrustDomain, name string) *x509.Certificate {
	serial := newSerial()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			Organization: []string{"Isthmus"},
			CommonName:   name + hex.EncodeToString(serial.Bytes()[:4]),
		},
		URIs:                  []*url.URL{td.ID().URL()},
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// leafTemplate returns an X.509-SVID (SPIFFE X.509-SVID §4): one URI SAN, not a CA, for client and server
// authentication.
func leafTemplate(cfg Config, issuer *x509.Certificate, l leaf, serial *big.Int, now time.Time) *x509.Certificate {
	now = now.UTC().Truncate(time.Second) // certificates have a resolution of one second
	return &x509.Certificate{
		SerialNumber:          serial,
		URIs:                  []*url.URL{l.id.URL()},
		DNSNames:              l.dns,
		NotBefore:             times.Later(now.Add(-leafBackdate-cfg.Skew), issuer.NotBefore),
		NotAfter:              times.Earlier(now.Add(durationOr(l.ttl, cfg.LeafTTL)), issuer.NotAfter),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func signCA(template, parent *x509.Certificate, pub crypto.PublicKey, key crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// newSerial returns a random positive 128-bit number whose top bits are set.
func newSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b)
}
