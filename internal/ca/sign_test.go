package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

func TestSignedLeaf(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	key := newKey()
	chain := must(a.Sign(t.Context(), csr(t, key), pay, 30*time.Minute, n1))
	if len(chain) != 2 {
		t.Fatalf("chain of %d certificates, want leaf and intermediate", len(chain))
	}
	leaf := parse(t, chain)[0]
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://cards.example/ns/default/sa/payments" {
		t.Errorf("URIs %v", leaf.URIs)
	}
	if names := len(leaf.DNSNames) + len(leaf.IPAddresses) + len(leaf.EmailAddresses); names != 0 ||
		leaf.Subject.String() != "" {
		t.Errorf("%d other names, subject %q", names, leaf.Subject)
	}
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature || leaf.IsCA || !leaf.BasicConstraintsValid {
		t.Errorf("key usage %b, CA %v", leaf.KeyUsage, leaf.IsCA)
	}
	if fmt.Sprint(leaf.ExtKeyUsage) != fmt.Sprint([]x509.ExtKeyUsage{
		x509.ExtKeyUsageServerAuth,
		x509.ExtKeyUsageClientAuth,
	}) {
		t.Errorf("extended key usage %v", leaf.ExtKeyUsage)
	}
	if leaf.SerialNumber.BitLen() != 135 {
		t.Errorf("serial number of %d bits", leaf.SerialNumber.BitLen())
	}
	if !leaf.NotBefore.Equal(noon.Add(-time.Minute)) || !leaf.NotAfter.Equal(noon.Add(30*time.Minute)) {
		t.Errorf("valid from %s to %s", leaf.NotBefore, leaf.NotAfter)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		t.Error("not the requester's key")
	}
	// go-spiffe is the judge.
	bundle := must(x509bundle.Parse(cards, a.Roots()))
	id, _, err := x509svid.Verify(parse(t, chain), bundle, x509svid.WithTime(noon))
	if err != nil || id != pay {
		t.Errorf("go-spiffe says %s, %v", id, err)
	}
	got := recorded(t, b, leaf)
	want := state.Cert{
		Serial: fmt.Sprintf("%x", leaf.SerialNumber), SPIFFEID: "spiffe://cards.example/ns/default/sa/payments",
		Node: "n1", Fingerprint: spiffe.Fingerprint(leaf), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		Root: a.RootFingerprint(),
	}
	if got != want {
		t.Errorf("recorded %+v\nwant     %+v", got, want)
	}
}

func TestSkewDatesBack(t *testing.T) {
	b := newBench(t)
	cfg := b.config()
	cfg.Skew = 10 * time.Minute
	leaf := sign(t, must(ca.New(t.Context(), cfg)), pay, time.Hour)[0]
	if !leaf.NotBefore.Equal(noon.Add(-11 * time.Minute)) {
		t.Errorf("valid from %s", leaf.NotBefore)
	}
}

// Whatever a request claims, the certificate says what the caller of Sign said and nothing else.
func TestClaimsOfTheRequestAreIgnored(t *testing.T) {
	a := newBench(t).start(t)
	random := mrand.New(mrand.NewPCG(3, 4))
	for range 200 {
		request := claims(random)
		der, err := x509.CreateCertificateRequest(rand.Reader, request, newKey())
		if err != nil {
			t.Fatal(err)
		}
		leaf := parse(t, must(a.Sign(t.Context(), der, pay, time.Hour, n1)))[0]
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://cards.example/ns/default/sa/payments" ||
			len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 || leaf.IsCA ||
			leaf.KeyUsage != x509.KeyUsageDigitalSignature || leaf.Subject.String() != "" || len(leaf.Extensions) != 5 {
			t.Fatalf("the request %+v got %v %v %v, CA %v, usage %b, subject %q, %d extensions", request,
				leaf.URIs, leaf.DNSNames, leaf.IPAddresses, leaf.IsCA, leaf.KeyUsage, leaf.Subject,
				len(leaf.Extensions))
		}
	}
}

// claims asks for things that it must not get.
func claims(random *mrand.Rand) *x509.CertificateRequest {
	r := &x509.CertificateRequest{}
	maybe := func(f func()) {
		if random.IntN(2) == 0 {
			f()
		}
	}
	maybe(func() { r.Subject = pkix.Name{CommonName: "isthmus/control", Organization: []string{"system:masters"}} })
	maybe(func() {
		r.URIs = append(r.URIs, must(url.Parse("spiffe://cards.example/isthmus/control")),
			must(url.Parse("spiffe://retail.example/ns/a/sa/b")))
	})
	maybe(func() { r.DNSNames = []string{"*", "control.cards.example"} })
	maybe(func() { r.IPAddresses = []net.IP{net.IPv4(10, 0, 0, 1)} })
	maybe(func() { r.EmailAddresses = []string{"root@cards.example"} })
	maybe(func() {
		isCA := must(asn1.Marshal(struct {
			CA bool
		}{true}))
		r.ExtraExtensions = append(r.ExtraExtensions,
			pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: isCA})
	})
	maybe(func() {
		usage := must(asn1.Marshal(asn1.BitString{Bytes: []byte{0x06}, BitLength: 7})) // keyCertSign, cRLSign
		r.ExtraExtensions = append(r.ExtraExtensions,
			pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 15}, Critical: true, Value: usage})
	})
	return r
}

func TestRequestKeys(t *testing.T) {
	a := newBench(t).start(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	for _, test := range []struct {
		name string
		key  crypto.Signer
		want bool
	}{
		{"P-256", newKey(), true},
		{"P-384", must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)), true},
		{"Ed25519", ed, true},
		{"RSA 2048", must(rsa.GenerateKey(rand.Reader, 2048)), true},
		{"P-224", must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader)), false},
		{"P-521", must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)), false},
		{"RSA 1024", must(rsa.GenerateKey(rand.Reader, 1024)), false},
	} {
		_, err := a.Sign(t.Context(), csr(t, test.key), pay, time.Hour, n1)
		if test.want && err != nil || !test.want && !errors.Is(err, ca.ErrCSR) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestRefusedRequests(t *testing.T) {
	a := newBench(t).start(t)
	good := csr(t, nil)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	for name, der := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "cut": good[:len(good)-1], "longer": append(bytes.Clone(good), 0),
		"huge": make([]byte, 16<<10+1), "signature forged": forged, "other's key": swapKey(t, good),
	} {
		if _, err := a.Sign(t.Context(), der, pay, time.Hour, n1); !errors.Is(err, ca.ErrCSR) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// swapKey puts another key of the same length into a request, which its signature then does not fit.
func swapKey(t *testing.T, der []byte) []byte {
	t.Helper()
	from := must(x509.ParseCertificateRequest(der)).RawSubjectPublicKeyInfo
	to := must(x509.MarshalPKIXPublicKey(newKey().Public()))
	return bytes.Replace(der, from, to, 1)
}

func TestRefusedNames(t *testing.T) {
	a := newBench(t).start(t)
	for _, id := range []string{"spiffe://retail.example/ns/default/sa/payments", "spiffe://cards.example"} {
		if _, err := a.Sign(t.Context(), csr(t, nil), must(spiffe.Parse(id)), time.Hour, n1); err == nil ||
			!strings.Contains(err.Error(), "names nobody in trust domain cards.example") {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := a.Sign(t.Context(), csr(t, nil), spiffe.ID{}, time.Hour, n1); err == nil {
		t.Error("the empty ID was signed")
	}
}

func TestLeafNeverOutlivesItsIssuer(t *testing.T) {
	a := newBench(t).start(t)
	chain := sign(t, a, pay, 365*24*time.Hour)
	if !chain[0].NotAfter.Equal(chain[1].NotAfter) {
		t.Errorf("leaf until %s, issuer until %s", chain[0].NotAfter, chain[1].NotAfter)
	}
	if usual := sign(t, a, pay, 0)[0]; !usual.NotAfter.Equal(noon.Add(time.Hour)) {
		t.Errorf("without a wish: until %s", usual.NotAfter)
	}
}

// Every certificate says under which admission it was issued, and nothing but that says so.
func TestSerialCarriesTheGeneration(t *testing.T) {
	a := newBench(t).start(t)
	leaf := parse(t, must(a.Sign(t.Context(), csr(t, nil), pay, time.Hour, n1)))[0]
	if serial := fmt.Sprintf("%x", leaf.SerialNumber); len(serial) != 34 ||
		!strings.HasPrefix(serial, "4000112233445566aa") || ca.Generation(leaf) != "00112233445566aa" {
		t.Errorf("serial number %s, generation %q", serial, ca.Generation(leaf))
	}
	for _, n := range []string{
		"", "00", "7f00112233445566aa0000000000000000", "400011223344556677", "4000112233445566aa000000000000000000",
	} {
		serial, _ := new(big.Int).SetString("0"+n, 16)
		if g := ca.Generation(&x509.Certificate{SerialNumber: serial}); g != "" {
			t.Errorf("serial number %s: generation %q", n, g)
		}
	}
	for _, g := range []string{"", "00112233445566", "00112233445566aabb", "zz112233445566aa"} {
		if _, err := a.Sign(t.Context(), csr(t, nil), pay, time.Hour,
			ca.Holder{Node: "n1", Generation: g}); err == nil {
			t.Errorf("generation %q was signed", g)
		}
	}
}

func TestSerialsDiffer(t *testing.T) {
	a := newBench(t).start(t)
	request := csr(t, nil)
	seen := map[string]*big.Int{}
	for range 100 {
		leaf := parse(t, must(a.Sign(t.Context(), request, pay, time.Hour, n1)))[0]
		seen[leaf.SerialNumber.String()] = leaf.SerialNumber
	}
	if len(seen) != 100 {
		t.Errorf("%d serial numbers for 100 certificates", len(seen))
	}
}

// BenchmarkSign counts certificates with their durable record; 64 requesters share the writes, as proxies do.
func BenchmarkSign(b *testing.B) {
	a := newBench(b).start(b)
	request := csr(b, nil)
	b.SetParallelism(64)
	before := cpuTime(b)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if _, err := a.Sign(b.Context(), request, pay, time.Hour, n1); err != nil {
				b.Error(err)
			}
		}
	})
	perCPUSecond(b, before)
}

// BenchmarkStandardLibrary is the measure for BenchmarkSign: the same cryptography and nothing else.
func BenchmarkStandardLibrary(b *testing.B) {
	key, request := newKey(), csr(b, nil)
	issuer := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: noon}
	before := cpuTime(b)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			r := must(x509.ParseCertificateRequest(request))
			check(b, r.CheckSignature())
			leaf := &x509.Certificate{SerialNumber: big.NewInt(2), URIs: []*url.URL{pay.URL()}, NotAfter: noon}
			must(x509.CreateCertificate(rand.Reader, leaf, issuer, r.PublicKey, key))
		}
	})
	perCPUSecond(b, before)
}

// perCPUSecond reports certificates for each second of processor time, whatever else the machine does meanwhile.
func perCPUSecond(b *testing.B, before time.Duration) {
	b.Helper()
	b.ReportMetric(float64(b.N)/(cpuTime(b)-before).Seconds(), "certs/cpu-s")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	check(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
