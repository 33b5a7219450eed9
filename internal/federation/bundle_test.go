package federation

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/spiffe"
)

func jwks(certs ...*x509.Certificate) string {
	var keys []string
	for _, c := range certs {
		b := Bundle{Roots: []*x509.Certificate{c}}
		b.TrustDomain, _ = spiffe.ParseTrustDomain("cards.example")
		raw, _ := b.Encode()
		var doc struct {
			Keys []json.RawMessage `json:"keys"`
		}
		_ = json.Unmarshal(raw, &doc)
		keys = append(keys, string(doc.Keys[0]))
	}
	return `{"keys":[` + strings.Join(keys, ",") + `],"spiffe_sequence":7,"spiffe_refresh_hint":60}`
}

func TestParseBundle(t *testing.T) {
	named := newAuthority(t, "cards", func(c *x509.Certificate) {
		u, _ := url.Parse("spiffe://cards.example")
		c.URIs = []*url.URL{u}
	})
	b, err := ParseBundle(domain(t, "cards.example"), []byte(jwks(named.cert)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if b.Sequence != 7 || b.RefreshHint != time.Minute || len(b.Roots) != 1 || !b.Roots[0].Equal(named.cert) {
		t.Errorf("got %+v", b)
	}
	if !b.has(spiffe.Fingerprint(named.cert)) {
		t.Error("does not have its own root")
	}
}

func TestParseBundleRefuses(t *testing.T) {
	root := newAuthority(t, "cards")
	leaf := newAuthority(t, "leaf", func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = false,
			x509.KeyUsageDigitalSignature
	})
	old := newAuthority(t, "old", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	foreign := newAuthority(t, "foreign", func(c *x509.Certificate) {
		u, _ := url.Parse("spiffe://bank.example")
		c.URIs = []*url.URL{u}
	})
	many := make([]*x509.Certificate, 17)
	for i := range many {
		many[i] = root.cert
	}
	good := jwks(root.cert)
	cert := base64.StdEncoding.EncodeToString(root.cert.Raw)
	tests := map[string]struct{ doc, says string }{
		"not json":    {"hello", "not a JWK set"},
		"empty":       {`{"keys":[],"spiffe_sequence":1}`, "holds no key"},
		"no sequence": {strings.Replace(good, "spiffe_sequence", "sequence", 1), "no spiffe_sequence"},
		"negative sequence": {
			strings.Replace(good, `"spiffe_sequence":7`, `"spiffe_sequence":-7`, 1),
			"not a SPIFFE bundle",
		},
		"a leaf":        {jwks(leaf.cert), "not a certificate authority"},
		"a leaf beside": {jwks(root.cert, leaf.cert), "certificate 2 of the bundle: not a certificate authority"},
		"expired":       {jwks(old.cert), "is valid at"},
		"a short key":   {jwks(withRSAKey(t, 1024)), "its RSA key has 1024 bits"},
		"a long key":    {jwks(withRSAKey(t, 8193)), "not a SPIFFE bundle"},
		"wrong trust domain": {
			jwks(root.cert, foreign.cert),
			"names spiffe://bank.example, not spiffe://cards.example",
		},
		"seventeen keys": {jwks(many...), "holds 17 keys; at most 16"},
		"ten thousand keys": {
			`{"keys":[` + strings.Repeat("{},", 9999) + `{}],"spiffe_sequence":1}`,
			"holds 10000 keys",
		},
		"too large":        {`{"keys":["` + strings.Repeat("x", MaxBundleBytes) + `"]}`, "larger than 131072 bytes"},
		"jwt key":          {strings.Replace(good, "x509-svid", "jwt-svid", 1), "not of use x509-svid"},
		"two certificates": {strings.Replace(good, `"x5c":["`, `"x5c":["`+cert+`","`, 1), "exactly one certificate"},
		"private key":      {strings.Replace(good, `"kty":"EC"`, `"kty":"EC","d":"AAAA"`, 1), "not a SPIFFE bundle"},
		"absurd refresh hint": {
			strings.Replace(good, `_hint":60`, `_hint":9223372036854775807`, 1),
			"spiffe_refresh_hint is no time",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseBundle(domain(t, "cards.example"), []byte(tt.doc), time.Now())
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v, want %q", err, tt.says)
			}
		})
	}
}

// withRSAKey is a root with a key of so many bits; nobody has the private one.
func withRSAKey(t *testing.T, bits int) *x509.Certificate {
	t.Helper()
	signer := newAuthority(t, "long")
	n := new(big.Int).SetBit(big.NewInt(1), bits-1, 1)
	der, err := x509.CreateCertificate(rand.Reader, signer.cert, signer.cert, &rsa.PublicKey{N: n, E: 65537},
		signer.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func FuzzParseBundle(f *testing.F) {
	root := newAuthority(f, "cards")
	f.Add([]byte(jwks(root.cert)))
	f.Add([]byte(`{"keys":[{"use":"x509-svid","x5c":["AAAA"]}],"spiffe_sequence":1}`))
	td := domain(f, "cards.example")
	now := time.Now()
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ParseBundle(td, raw, now)
		if err != nil {
			return
		}
		if len(b.Roots) == 0 || len(b.Roots) > 16 {
			t.Fatalf("%d roots accepted", len(b.Roots))
		}
		text := peerrules.EncodeRoots(distinct(b.Roots))
		if _, err := peerrules.ParseRoots(text); err != nil {
			t.Fatalf("accepted roots that the rules refuse: %v", err)
		}
		out, err := b.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseBundle(td, out, now); err != nil {
			t.Fatalf("does not read what it wrote: %v", err)
		}
	})
}

func TestDistinctOrdersAndDropsDoubles(t *testing.T) {
	a, b := newAuthority(t, "a"), newAuthority(t, "b")
	x := peerrules.EncodeRoots(distinct([]*x509.Certificate{a.cert, b.cert, a.cert}))
	y := peerrules.EncodeRoots(distinct([]*x509.Certificate{b.cert, a.cert}))
	if string(x) != string(y) {
		t.Error("equal sets give different bytes")
	}
	if n := strings.Count(string(x), "BEGIN"); n != 2 {
		t.Errorf("%d certificates, want 2", n)
	}
	if fmt.Sprint(sameRoots([]*x509.Certificate{a.cert}, []*x509.Certificate{b.cert})) != "false" {
		t.Error("different roots are the same")
	}
}
