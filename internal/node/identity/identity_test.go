package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority is a root that signs for tests.
type authority struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	return authority{root: certify(t, template, template, key, key), key: key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certify(t *testing.T, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a authority) leaf(t *testing.T, id string, key *ecdsa.PrivateKey, from, to time.Time) *x509.Certificate {
	t.Helper()
	u, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	return certify(t, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: to, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{u},
	}, a.root, key, a.key)
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
}

func (a authority) token(t *testing.T) string {
	t.Helper()
	fp := sha256.Sum256(a.root.Raw)
	body, err := json.Marshal(map[string]any{
		"id": "0123456789abcdef", "secret": base64.RawURLEncoding.EncodeToString(make([]byte, 32)),
		"fingerprint": hex.EncodeToString(fp[:]), "addresses": []string{"10.0.0.1:15012"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return "isthmus-join-v1." + base64.RawURLEncoding.EncodeToString(body)
}

const control = "spiffe://cards.example/isthmus/control"

// handshake is what a client with conf thinks of a server that presents these certificates.
func handshake(t *testing.T, conf *tls.Config, key *ecdsa.PrivateKey, chain ...*x509.Certificate) error {
	t.Helper()
	presented := tls.Certificate{PrivateKey: key}
	for _, c := range chain {
		presented.Certificate = append(presented.Certificate, c.Raw)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		server, err := l.Accept()
		if err != nil {
			return
		}
		defer server.Close()
		tls.Server(server, &tls.Config{
			Certificates: []tls.Certificate{presented},
			ClientAuth:   tls.RequestClientCert,
		}).Handshake()
	}()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(5 * time.Second))
	return tls.Client(client, conf).Handshake()
}

func TestAttestTLSPinsTheRoot(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	token, err := ParseToken(ours.token(t))
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	from, to := time.Now().Add(-time.Minute), time.Now().Add(time.Minute)
	good := ours.leaf(t, control, key, from, to)
	for _, c := range []struct {
		name  string
		chain []*x509.Certificate
		want  string // in the error; empty: accepted
	}{
		{"the control plane", []*x509.Certificate{good, ours.root}, ""},
		{"without its root", []*x509.Certificate{good}, "does not present the root certificate"},
		{
			"another root",
			[]*x509.Certificate{other.leaf(t, control, key, from, to), other.root},
			"does not present the root certificate",
		},
		{
			"another root with ours appended",
			[]*x509.Certificate{other.leaf(t, control, key, from, to), other.root, ours.root},
			"unknown authority",
		},
		{"a workload of the mesh", []*x509.Certificate{ours.leaf(t, "spiffe://cards.example/ns/default/sa/payments",
			key, from, to), ours.root}, "not the control plane"},
		{
			"a control plane that expired",
			[]*x509.Certificate{ours.leaf(t, control, key, from.Add(-time.Hour), from), ours.root},
			"expired",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := handshake(t, AttestTLS(token), key, c.chain...)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestControlTLS(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	from, to := time.Now().Add(-time.Minute), time.Now().Add(time.Minute)
	own := newKey(t)
	svid, err := NewSVID(own, [][]byte{ours.leaf(t, "spiffe://cards.example/isthmus/node/n", own, from, to).Raw},
		ours.pem(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	current := func() *SVID { return svid }
	key := newKey(t)
	if err := handshake(t, ControlTLS(current), key, ours.leaf(t, control, key, from, to)); err != nil {
		t.Errorf("our control plane: %v", err)
	}
	if err := handshake(t, ControlTLS(current), key, other.leaf(t, control, key, from, to), other.root); err == nil {
		t.Error("an impostor under another root was believed")
	}
	if err := handshake(t, ControlTLS(current), key,
		ours.leaf(t, "spiffe://other.example/isthmus/control", key, from, to)); err == nil {
		t.Error("a control plane of another trust domain was believed")
	}
	if err := handshake(t, ControlTLS(func() *SVID { return nil }), key,
		ours.leaf(t, control, key, from, to)); err == nil {
		t.Error("without an identity the control plane was believed")
	}
}

func TestLoadToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	text := newAuthority(t).token(t)
	write := func(content string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write(text+"\n", 0o640)
	token, err := LoadToken(path)
	if err != nil || token.Secret() != text || token.Addresses[0] != "10.0.0.1:15012" {
		t.Errorf("got %v, %v", token.Addresses, err)
	}
	if s := fmt.Sprintf("%v %s", token, slog.AnyValue(token)); strings.Contains(s, text[20:40]) {
		t.Errorf("the token shows itself: %s", s)
	}
	write(text, 0o644)
	if _, err := LoadToken(path + ".gone"); err == nil || !strings.Contains(err.Error(), "isthmus token create") {
		t.Errorf("no file: %v", err)
	}
	if _, err := LoadToken(path); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
		t.Errorf("a world-readable token: %v", err)
	}
	write(text[:len(text)-9], 0o600)
	if _, err := LoadToken(path); err == nil || strings.Contains(err.Error(), text[20:40]) {
		t.Errorf("a damaged token: %v", err)
	}
}

func TestNewSVIDRefuses(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	key, now := newKey(t), time.Now()
	good := ours.leaf(t, "spiffe://cards.example/ns/default/sa/a", key, now.Add(-time.Minute), now.Add(time.Hour)).Raw
	for _, c := range []struct {
		name  string
		key   *ecdsa.PrivateKey
		chain [][]byte
		roots []byte
		now   time.Time
	}{
		{"another key", newKey(t), [][]byte{good}, ours.pem(), now},
		{"another root", key, [][]byte{good}, other.pem(), now},
		{"no roots", key, [][]byte{good}, nil, now},
		{"no chain", key, nil, ours.pem(), now},
		{"not a certificate", key, [][]byte{[]byte("x")}, ours.pem(), now},
		{"expired", key, [][]byte{good}, ours.pem(), now.Add(2 * time.Hour)},
		{"not yet valid", key, [][]byte{good}, ours.pem(), now.Add(-2 * time.Minute)},
	} {
		if _, err := NewSVID(c.key, c.chain, c.roots, c.now); err == nil {
			t.Errorf("%s: accepted", c.name)
		}
	}
}

func TestSVIDSaveLoadAndRedact(t *testing.T) {
	ours := newAuthority(t)
	key, now := newKey(t), time.Now()
	svid, err := NewSVID(key, [][]byte{ours.leaf(t, "spiffe://cards.example/isthmus/node/n", key, now.Add(-time.Minute),
		now.Add(time.Hour)).Raw}, ours.pem(), now)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "identity.pem")
	if err := Save(path, svid); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	back, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if back.ID != svid.ID || !back.key.Equal(svid.key) || len(back.Roots) != 1 || back.State() != svid.State() {
		t.Errorf("got %v", back)
	}
	keyText, err := svid.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	if s := fmt.Sprintf("%v %+v %s", svid, svid, slog.AnyValue(svid)); strings.Contains(s, string(keyText[40:60])) ||
		!strings.Contains(s, "redacted") {
		t.Errorf("the identity shows itself: %s", s)
	}
	chain, err := svid.ChainPEM(true)
	if err != nil || strings.Count(string(chain), "BEGIN CERTIFICATE") != 2 ||
		!strings.HasSuffix(string(chain), string(ours.pem())) {
		t.Errorf("with root: %v\n%s", err, chain)
	}
	if chain, err = svid.ChainPEM(false); err != nil || strings.Count(string(chain), "BEGIN CERTIFICATE") != 1 {
		t.Errorf("without root: %v\n%s", err, chain)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "is damaged") ||
		errors.Is(err, os.ErrNotExist) {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestRenewAt(t *testing.T) {
	received := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	// Backdated by a minute: half of what is left counts, not half of the whole.
	s := &SVID{Received: received, Chain: []*x509.Certificate{{
		NotBefore: received.Add(-time.Minute),
		NotAfter:  received.Add(time.Hour),
	}}}
	for jitter, want := range map[float64]string{-1: "12:27:00", 0: "12:30:00", 1: "12:33:00"} {
		if got := s.RenewAt(jitter).Format(time.TimeOnly); got != want {
			t.Errorf("jitter %v: %s, want %s", jitter, got, want)
		}
	}
}
