package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
)

// authority is a root that signs what a test needs, valid around the real time.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, domain string) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: domain},
		URIs: []*url.URL{{Scheme: "spiffe", Host: domain}}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{t, cert, key}
}

func (a authority) sign(id string, public any) []byte {
	a.t.Helper()
	uri, err := url.Parse(id)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), URIs: []*url.URL{uri}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, public, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return der
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// serveTLS lets a fake answer on loopback with mutual TLS as the given identity.
func (a authority) serveTLS(f *fake, id string) (address string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	serveOn(a.t, f, l, credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		Certificates: []tls.Certificate{{Certificate: [][]byte{a.sign(id, key.Public())}, PrivateKey: key}},
	}))
	return l.Addr().String()
}

// credentialsOf runs `isthmus admin cert` against a control plane that signs with a, and returns the file.
func credentialsOf(a authority, name string) string {
	a.t.Helper()
	f := &fake{sign: func(r *adminapi.AdminCertRequest) (*agentapi.SignResponse, error) {
		csr, err := x509.ParseCertificateRequest(r.CSR)
		if err != nil {
			return nil, err
		}
		der := a.sign("spiffe://cards.example/isthmus/admin/"+r.Name, csr.PublicKey)
		return &agentapi.SignResponse{Chain: [][]byte{der}, Roots: a.pem()}, csr.CheckSignature()
	}}
	file := filepath.Join(a.t.TempDir(), "admin.pem")
	expect(a.t, run(a.t, "", "admin", "cert", name, "--out", file, "--socket", serve(a.t, f)), 0, "mode 0600")
	return file
}

func TestAdminFromElsewhere(t *testing.T) {
	mesh := newAuthority(t, "cards.example")
	file := credentialsOf(mesh, "ada")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("credentials: %v, %v; want mode 0600", info, err)
	}
	answers := &fake{checks: adminapi.CheckResponse{Checks: []adminapi.Check{{
		Name: "root", State: "ok", Detail: "fine",
	}}}}

	t.Run("right control plane", func(t *testing.T) {
		address := mesh.serveTLS(answers, "spiffe://cards.example/isthmus/control")
		expect(t, run(t, "", "check", "--control", address, "--credentials", file), 0)
	})
	t.Run("a workload in its place", func(t *testing.T) {
		address := mesh.serveTLS(answers, "spiffe://cards.example/ns/default/sa/payments")
		expect(t, run(t, "", "check", "--control", address, "--credentials", file), 77, "handshake failed",
			"isthmus admin cert")
	})
	t.Run("another mesh's control plane", func(t *testing.T) {
		address := newAuthority(t, "cards.example").serveTLS(answers, "spiffe://cards.example/isthmus/control")
		expect(t, run(t, "", "check", "--control", address, "--credentials", file), 77, "handshake failed")
	})
	t.Run("credentials of another mesh", func(t *testing.T) {
		address := mesh.serveTLS(answers, "spiffe://cards.example/isthmus/control")
		other := credentialsOf(newAuthority(t, "cards.example"), "eve")
		expect(t, run(t, "", "check", "--control", address, "--credentials", other), 77)
	})
	t.Run("nobody there", func(t *testing.T) {
		expect(t, run(t, "", "check", "--control", "127.0.0.1:1", "--credentials", file), 69,
			"no control plane answers at 127.0.0.1:1")
	})
	t.Run("a file that is none", func(t *testing.T) {
		bad := filepath.Join(t.TempDir(), "bad.pem")
		if err := os.WriteFile(bad, mesh.pem(), 0o600); err != nil {
			t.Fatal(err)
		}
		expect(t, run(t, "", "check", "--control", "127.0.0.1:1", "--credentials", bad), 65,
			"not an administrator's credentials")
	})
	raw, err := os.ReadFile(file)
	if err != nil || strings.Count(string(raw), "-----BEGIN") != 3 {
		t.Errorf("credentials hold %d blocks, want key, certificate and root: %v",
			strings.Count(string(raw), "-----BEGIN"), err)
	}
}

func FuzzParseCredentials(f *testing.F) {
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		svid, roots, err := parseCredentials(raw)
		if err == nil && (svid == nil || len(roots) == 0) {
			t.Error("accepted credentials without an identity or without a root")
		}
	})
}
