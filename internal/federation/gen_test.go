package federation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
)

// authority is a root of tests and its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB, name string, change ...func(*x509.Certificate)) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	for _, c := range change {
		c(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert, key}
}

// issue signs a leaf for a SPIFFE ID; the chain ends with the root.
func (a authority) issue(t testing.TB, id string) ([][]byte, *ecdsa.PrivateKey) {
	t.Helper()
	return a.issueFor(t, id, time.Hour)
}

func (a authority) issueFor(t testing.TB, id string, life time.Duration) ([][]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	tmpl := &x509.Certificate{
		SerialNumber: serial(t), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(life), URIs: []*url.URL{u},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{der, a.cert.Raw}, key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func domain(t testing.TB, name string) spiffe.TrustDomain {
	t.Helper()
	td, err := spiffe.ParseTrustDomain(name)
	if err != nil {
		t.Fatal(err)
	}
	return td
}

func certs(all ...authority) []*x509.Certificate {
	var out []*x509.Certificate
	for _, a := range all {
		out = append(out, a.cert)
	}
	return out
}

func mustDomain(name string) spiffe.TrustDomain {
	td, err := spiffe.ParseTrustDomain(name)
	if err != nil {
		panic(err)
	}
	return td
}
