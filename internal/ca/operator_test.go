package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/ca"
)

// operatorCA is what an operator's files are made from; a test changes one thing of it.
type operatorCA struct {
	root, mid       x509.Certificate // templates
	rootKey, midKey crypto.Signer
	dir             string
	files           ca.OperatorFiles
	after           func(t *testing.T, o *operatorCA) // when the files are written
}

func newOperatorCA(t *testing.T, intermediate bool) *operatorCA {
	t.Helper()
	o := &operatorCA{rootKey: newKey(), midKey: newKey(), dir: t.TempDir()}
	o.root = x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Bank root"}, NotBefore: noon.Add(-time.Hour),
		NotAfter: noon.Add(1000 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	o.mid = o.root
	o.mid.SerialNumber, o.mid.Subject.CommonName = big.NewInt(2), "Bank mesh CA"
	o.files = ca.OperatorFiles{RootCert: o.path("root.pem"), RootKey: o.path("root.key")}
	if intermediate {
		o.files = ca.OperatorFiles{
			RootCert: o.path("root.pem"), IntermediateCert: o.path("mid.pem"), IntermediateKey: o.path("mid.key"),
		}
	}
	return o
}

func (o *operatorCA) path(name string) string { return filepath.Join(o.dir, name) }

// write makes the files.
func (o *operatorCA) write(t *testing.T) {
	t.Helper()
	root := must(x509.CreateCertificate(rand.Reader, &o.root, &o.root, o.rootKey.Public(), o.rootKey))
	mid := must(x509.CreateCertificate(rand.Reader, &o.mid, must(x509.ParseCertificate(root)), o.midKey.Public(),
		o.rootKey))
	o.pem(t, "root.pem", "CERTIFICATE", root)
	o.pem(t, "mid.pem", "CERTIFICATE", mid)
	o.pem(t, "root.key", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(o.rootKey)))
	o.pem(t, "mid.key", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(o.midKey)))
	if o.after != nil {
		o.after(t, o)
	}
}

func (o *operatorCA) pem(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	check(t, os.WriteFile(o.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func TestOperatorFiles(t *testing.T) {
	for _, test := range []struct {
		name         string
		intermediate bool
		change       func(o *operatorCA)
	}{
		{"root and key", false, func(o *operatorCA) {}},
		{"root and intermediate", true, func(o *operatorCA) {}},
		{"RSA root", false, func(o *operatorCA) { o.rootKey = must(rsa.GenerateKey(rand.Reader, 2048)) }},
		{"P-384 intermediate", true, func(o *operatorCA) {
			o.midKey = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
		}},
		{
			"constraint that permits", false,
			func(o *operatorCA) { o.root.PermittedURIDomains = []string{"cards.example"} },
		},
		{
			"constraint that permits below", true,
			func(o *operatorCA) { o.mid.PermittedURIDomains = []string{".example"} },
		},
		{"named for this mesh", true, func(o *operatorCA) {
			o.mid.URIs = []*url.URL{{
				Scheme: "spiffe",
				Host:   "cards.example",
			}}
		}},
		{"SEC 1 key with parameters", false, func(o *operatorCA) {
			o.after = func(t *testing.T, o *operatorCA) {
				key := pem.EncodeToMemory(&pem.Block{
					Type:  "EC PRIVATE KEY",
					Bytes: must(x509.MarshalECPrivateKey(o.rootKey.(*ecdsa.PrivateKey))),
				})
				text := append(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 0}}), key...)
				check(t, os.WriteFile(o.files.RootKey, text, 0o600))
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOperatorCA(t, test.intermediate)
			test.change(o)
			o.write(t)
			b := newBench(t)
			cfg := b.config()
			cfg.Operator = o.files
			for range 2 { // the second start too
				a, err := ca.New(t.Context(), cfg)
				check(t, err)
				chain := sign(t, a, pay, time.Hour)
				root := parsePEM(t, a.Roots())
				if root.Subject.CommonName != "Bank root" {
					t.Errorf("root %s", root.Subject)
				}
				check(t, chain[1].CheckSignatureFrom(root))
				check(t, chain[0].CheckSignatureFrom(chain[1]))
			}
		})
	}
}

func TestOperatorRefusals(t *testing.T) {
	replace := func(file func(*operatorCA) string, text string) func(*operatorCA) {
		return func(o *operatorCA) {
			o.after = func(t *testing.T, o *operatorCA) { check(t, os.WriteFile(file(o), []byte(text), 0o600)) }
		}
	}
	rootCert := func(o *operatorCA) string { return o.files.RootCert }
	rootKey := func(o *operatorCA) string { return o.files.RootKey }
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	for _, test := range []struct {
		name         string
		intermediate bool
		change       func(o *operatorCA)
		want         string
	}{
		{"no key named", false, func(o *operatorCA) { o.files.RootKey = "" }, "needs both its certificate and its key"},
		{
			"no certificate named", false, func(o *operatorCA) { o.files.RootCert = "" },
			"needs both its certificate and its key",
		},
		{
			"no intermediate key named", true, func(o *operatorCA) { o.files.IntermediateKey = "" },
			"name the missing file",
		},
		{
			"root key beside an intermediate", true, func(o *operatorCA) { o.files.RootKey = o.path("root.key") },
			"root.key is not needed beside an intermediate: take it off this machine",
		},
		{
			"certificate absent", false, func(o *operatorCA) { o.files.RootCert = o.path("gone.pem") },
			"read certificate: open {dir}/gone.pem",
		},
		{
			"key absent", false, func(o *operatorCA) { o.files.RootKey = o.path("gone.key") },
			"read private key: open {dir}/gone.key",
		},
		{
			"certificate is text", false, replace(rootCert, "hello"),
			"{dir}/root.pem does not begin with a PEM block CERTIFICATE",
		},
		{
			"certificate is rubbish", false,
			replace(rootCert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
			"certificate {dir}/root.pem does not parse",
		},
		{"two certificates", false, func(o *operatorCA) {
			o.after = func(t *testing.T, o *operatorCA) {
				text := must(os.ReadFile(o.files.RootCert))
				check(t, os.WriteFile(o.files.RootCert, append(text, text...), 0o600))
			}
		}, "{dir}/root.pem holds more than one PEM block"},
		{"key is text", false, replace(rootKey, "hello"), "{dir}/root.key holds no private key in PEM form"},
		{
			"key is rubbish", false, replace(rootKey, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
			"private key {dir}/root.key: it does not parse",
		},
		{
			"key encrypted", false, replace(rootKey,
				"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"),
			"private key {dir}/root.key: it is encrypted",
		},
		{"key others may read", false, func(o *operatorCA) {
			o.after = func(t *testing.T, o *operatorCA) { check(t, os.Chmod(o.files.RootKey, 0o644)) }
		}, "run chmod 600 {dir}/root.key"},
		{"key of another", false, func(o *operatorCA) {
			o.after = func(t *testing.T, o *operatorCA) {
				o.pem(t, "root.key", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(newKey())))
			}
		}, "key {dir}/root.key is not the key of certificate {dir}/root.pem"},
		{
			"not a CA", false, func(o *operatorCA) {
				o.root.IsCA, o.root.KeyUsage = false,
					x509.KeyUsageDigitalSignature
			},
			"certificate {dir}/root.pem is not a CA",
		},
		{
			"may not sign", true, func(o *operatorCA) { o.mid.KeyUsage = x509.KeyUsageCRLSign },
			"certificate {dir}/mid.pem may not sign certificates",
		},
		{
			"over", false, func(o *operatorCA) { o.root.NotAfter = noon.Add(-time.Minute) },
			"is valid from 2026-03-01T11:00:00Z to 2026-03-01T11:59:00Z, and now is 2026-03-01T12:00:00Z",
		},
		{
			"not begun", true, func(o *operatorCA) { o.mid.NotBefore = noon.Add(time.Hour) },
			"certificate {dir}/mid.pem is valid from 2026-03-01T13:00:00Z",
		},
		{
			"path length 0", false, func(o *operatorCA) { o.root.MaxPathLenZero = true },
			"root certificate {dir}/root.pem has path length 0",
		},
		{"not a root", false, func(o *operatorCA) {
			o.files.RootCert, o.files.RootKey = o.path("mid.pem"), o.path("mid.key")
		}, "certificate {dir}/mid.pem is not self-signed, so it is no root"},
		{"of another root", true, func(o *operatorCA) {
			o.after = func(t *testing.T, o *operatorCA) {
				other := o.root
				key := newKey()
				o.pem(t, "root.pem", "CERTIFICATE",
					must(x509.CreateCertificate(rand.Reader, &other, &other, key.Public(), key)))
			}
		}, "intermediate certificate {dir}/mid.pem was not signed by root {dir}/root.pem"},
		{
			"another mesh's", true, func(o *operatorCA) {
				o.mid.URIs = []*url.URL{{
					Scheme: "spiffe",
					Host:   "retail.example",
				}}
			},
			"certificate {dir}/mid.pem is of another mesh: its name is spiffe://retail.example, not spiffe://cards.example",
		},
		{
			"constraint permits others", false,
			func(o *operatorCA) { o.root.PermittedURIDomains = []string{"retail.example"} },
			"certificate {dir}/root.pem may not sign for this mesh: its name constraints permit only retail.example",
		},
		{
			"constraint excludes", true, func(o *operatorCA) { o.mid.ExcludedURIDomains = []string{".example"} },
			"its name constraints exclude .example",
		},
		{
			"only for mail", true,
			func(o *operatorCA) { o.mid.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} },
			"a certificate signed under {dir}/mid.pem does not verify",
		},
		{
			"RSA 1024", false, func(o *operatorCA) { o.rootKey = must(rsa.GenerateKey(rand.Reader, 1024)) },
			"its RSA key has 1024 bits: make the CA with ECDSA P-256",
		},
		{
			"P-521", true, func(o *operatorCA) { o.midKey = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)) },
			"its key is of curve P-521",
		},
		{
			"Ed25519", false, func(o *operatorCA) { o.rootKey = ed },
			"its key is of a kind that Envoy does not verify by default",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOperatorCA(t, test.intermediate)
			test.change(o)
			o.write(t)
			cfg := newBench(t).config()
			cfg.Operator = o.files
			_, err := ca.New(t.Context(), cfg)
			want := strings.ReplaceAll(test.want, "{dir}", o.dir)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got  %v\nwant it to say %q", err, want)
			}
		})
	}
}

// A mesh keeps the root with which it was begun.
func TestOperatorRootCannotChange(t *testing.T) {
	b := newBench(t)
	first, second := newOperatorCA(t, false), newOperatorCA(t, true)
	first.write(t)
	second.write(t)
	cfg := b.config()
	cfg.Operator = first.files
	must(ca.New(t.Context(), cfg))
	cfg.Operator = second.files
	if _, err := ca.New(t.Context(), cfg); err == nil ||
		!strings.Contains(err.Error(), "but this mesh was begun with") {
		t.Errorf("another root: %v", err)
	}
	cfg.Operator = ca.OperatorFiles{}
	if _, err := ca.New(t.Context(), cfg); err == nil ||
		!strings.Contains(err.Error(), "begun with an operator's root: name its files again") {
		t.Errorf("no files any more: %v", err)
	}
}

func TestOperatorIntermediateThatRunsOut(t *testing.T) {
	b := newBench(t)
	o := newOperatorCA(t, true)
	o.write(t)
	cfg := b.config()
	cfg.Operator = o.files
	a := must(ca.New(t.Context(), cfg))
	b.set(noon.Add(1001 * time.Hour))
	if _, err := a.Sign(t.Context(), csr(t, nil), pay, time.Hour, n1); err == nil ||
		!strings.Contains(err.Error(), "put a new one in its place and start again") {
		t.Errorf("got %v", err)
	}
}
