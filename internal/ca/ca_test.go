package ca_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/logtest"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/state/statetest"
	"isthmus.dev/isthmus/internal/waittest"
)

var (
	noon  = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	cards = must(spiffe.ParseTrustDomain("cards.example"))
	pay   = must(spiffe.Workload(cards, "default", "payments"))
)

// bench is an authority on a real state file, with a clock that the test sets.
type bench struct {
	dir string
	db  state.Store
	log logtest.Buffer
	mu  sync.Mutex // guards at
	at  time.Time
}

var n1 = ca.Holder{Node: "n1", Generation: "00112233445566aa"}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{dir: statetest.Dir(t), at: noon}
	b.db = must(sqlite.Open(t.Context(), filepath.Join(b.dir, "state.db")))
	t.Cleanup(func() {
		if err := b.db.Close(); err != nil {
			t.Error(err)
		}
	})
	n := state.Node{
		Node: snapshot.Node{Name: n1.Node, Role: snapshot.RoleNode}, Generation: n1.Generation,
		Attested: noon,
	}
	if err := b.db.AttestNode(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at
}

func (b *bench) set(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = at
}

func (b *bench) keyFile() string { return filepath.Join(b.dir, "ca.key") }

func (b *bench) config() ca.Config {
	return ca.Config{
		TrustDomain: cards, Store: b.db, KeyFile: b.keyFile(), Now: b.now,
		Log: slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func (b *bench) start(t testing.TB) *ca.Authority {
	t.Helper()
	a, err := ca.New(t.Context(), b.config())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestFirstStart(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	root := parsePEM(t, a.Roots())
	if !root.IsCA || root.SubjectKeyId == nil || len(root.URIs) != 1 ||
		root.URIs[0].String() != "spiffe://cards.example" {
		t.Errorf("root: CA %v, key id %x, URIs %v", root.IsCA, root.SubjectKeyId, root.URIs)
	}
	if got := root.NotAfter; !got.Equal(noon.Add(3650*24*time.Hour)) || !got.Equal(a.RootNotAfter()) {
		t.Errorf("root ends %s", got)
	}
	if k, ok := root.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		t.Errorf("root key is %T", root.PublicKey)
	}
	if a.RootFingerprint() != spiffe.Fingerprint(root) || len(a.RootFingerprint()) != 64 {
		t.Errorf("fingerprint %s", a.RootFingerprint())
	}
	info := must(os.Stat(b.keyFile()))
	if info.Mode().Perm() != 0o600 {
		t.Errorf("key file has mode %o", info.Mode().Perm())
	}
	if left := must(filepath.Glob(b.keyFile() + ".*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestSecondStartKeepsAll(t *testing.T) {
	b := newBench(t)
	first := b.start(t)
	one := sign(t, first, pay, time.Hour)
	second := b.start(t)
	two := sign(t, second, pay, time.Hour)
	if !bytes.Equal(first.Roots(), second.Roots()) {
		t.Error("another root")
	}
	if !bytes.Equal(one[1].Raw, two[1].Raw) {
		t.Error("another intermediate, though the first is young")
	}
}

func TestIntermediateIsRenewedAtHalfItsLife(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	first := sign(t, a, pay, time.Hour)[1]
	if !first.MaxPathLenZero || first.MaxPathLen != 0 || !first.NotAfter.Equal(noon.Add(7*24*time.Hour)) {
		t.Errorf("intermediate: path length %d, until %s", first.MaxPathLen, first.NotAfter)
	}
	b.set(noon.Add(3 * 24 * time.Hour))
	if !sign(t, a, pay, time.Hour)[1].Equal(first) {
		t.Error("renewed too early")
	}
	b.set(noon.Add(4 * 24 * time.Hour))
	second := sign(t, a, pay, time.Hour)[1]
	if second.Equal(first) {
		t.Error("not renewed after half its life")
	}
	if !sign(t, b.start(t), pay, time.Hour)[1].Equal(second) {
		t.Error("the renewed one was not kept")
	}
	b.set(noon.Add(-24 * time.Hour)) // the clock is stepped back behind both
	sign(t, a, pay, time.Hour)
	b.set(noon.Add(3649*24*time.Hour + 12*time.Hour)) // the root ends in half a day
	last := sign(t, a, pay, 24*time.Hour)
	for _, c := range last {
		if c.NotAfter.After(a.RootNotAfter()) {
			t.Errorf("%v outlives the root: %s", c.URIs, c.NotAfter)
		}
	}
	b.set(noon.Add(3651 * 24 * time.Hour))
	if _, err := a.Sign(t.Context(), csr(t, nil), pay, time.Hour, n1); err == nil ||
		!strings.Contains(err.Error(), "set the clock right, or renew the root") {
		t.Errorf("past the root's end: %v", err)
	}
}

func TestFailedRenewalUsesTheOldOne(t *testing.T) {
	b := newBench(t)
	cfg := b.config()
	broken := &brokenStore{Store: b.db}
	cfg.Store = broken
	a := must(ca.New(t.Context(), cfg))
	first := sign(t, a, pay, time.Hour)[1]
	broken.fail = true
	b.set(noon.Add(4 * 24 * time.Hour))
	for range 50 {
		if !sign(t, a, pay, time.Hour)[1].Equal(first) {
			t.Fatal("another intermediate")
		}
	}
	if n := strings.Count(b.log.String(), "signing certificate not renewed, the old one goes on"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
	broken.fail = false
	b.set(noon.Add(4*24*time.Hour + time.Minute))
	if sign(t, a, pay, time.Hour)[1].Equal(first) {
		t.Error("not renewed once the store works again")
	}
}

type brokenStore struct {
	ca.Store
	fail bool
}

func (s *brokenStore) PutBlob(ctx context.Context, b state.Blob, was []byte) error {
	if s.fail {
		return errors.New("disk full")
	}
	return s.Store.PutBlob(ctx, b, was)
}

func TestStartRefusals(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, b *bench, c *ca.Config)
		want    string
	}{
		{"key file others may read", func(t *testing.T, b *bench, c *ca.Config) {
			b.start(t)
			check(t, os.Chmod(b.keyFile(), 0o640))
		}, "has mode 0640, so others may read the secret in it: run chmod 600 {dir}/ca.key"},
		{"key file gone", func(t *testing.T, b *bench, c *ca.Config) {
			b.start(t)
			check(t, os.Remove(b.keyFile()))
		}, "key file {dir}/ca.key is missing, and the CA's private keys in the state open with nothing else: " +
			"restore it from its backup, or copy it from another control plane of the mesh."},
		{"another key file", func(t *testing.T, b *bench, c *ca.Config) {
			b.start(t)
			newBench(t).copyKey(t, b.keyFile())
		}, "key file {dir}/ca.key does not open the root key in the state"},
		{"state gone, key file left", func(t *testing.T, b *bench, c *ca.Config) {
			lost := newBench(t)
			lost.start(t)
			c.KeyFile = lost.keyFile()
		}, "the state holds no CA, yet key file"},
		{
			"key file is text", func(t *testing.T, b *bench, c *ca.Config) {
				check(t, os.WriteFile(b.keyFile(), []byte("hunter2\n"), 0o600))
			},
			"key file {dir}/ca.key does not hold a key: it must hold 32 random bytes in base64, as `openssl rand -base64 32` prints them",
		},
		{
			"key file is a folder", func(t *testing.T, b *bench, c *ca.Config) { c.KeyFile = b.dir },
			"is a folder: name a file",
		},
		{"no key file", func(t *testing.T, b *bench, c *ca.Config) { c.KeyFile = "" }, "no key file is named"},
		{"another trust domain", func(t *testing.T, b *bench, c *ca.Config) {
			b.start(t)
			c.TrustDomain = must(spiffe.ParseTrustDomain("retail.example"))
		}, "its name is spiffe://cards.example, not spiffe://retail.example"},
		{
			"lives that do not go together", func(t *testing.T, b *bench, c *ca.Config) { c.LeafTTL = 48 * time.Hour },
			"must be at least 4 times",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t)
			cfg := b.config()
			test.prepare(t, b, &cfg)
			_, err := ca.New(t.Context(), cfg)
			want := strings.ReplaceAll(test.want, "{dir}", b.dir)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v\nwant it to say %q", err, want)
			}
		})
	}
}

func (b *bench) copyKey(t *testing.T, to string) {
	t.Helper()
	b.start(t)
	check(t, os.WriteFile(to, must(os.ReadFile(b.keyFile())), 0o600))
}

func TestOperatorsKeyFileIsLeftAsItIs(t *testing.T) {
	b := newBench(t)
	const given = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
	check(t, os.WriteFile(b.keyFile(), []byte(given), 0o600))
	b.start(t)
	if got := string(must(os.ReadFile(b.keyFile()))); got != given {
		t.Errorf("the key file now holds %q", got)
	}
	b.start(t)
}

// The key of each blob opens only in its own place.
func TestSealedKeysCannotChangePlaces(t *testing.T) {
	b := newBench(t)
	b.start(t)
	mid := must(b.db.Blob(t.Context(), "intermediate"))
	mid.Name = "root"
	check(t, b.db.PutBlob(t.Context(), mid, must(b.db.Blob(t.Context(), "root")).Cert))
	if _, err := ca.New(t.Context(), b.config()); err == nil ||
		!strings.Contains(err.Error(), "does not open the root key") {
		t.Errorf("got %v", err)
	}
}

// Nothing that the authority writes shows a secret: not its log, not its errors, not the state file.
func TestNoSecretLeaks(t *testing.T) {
	b := newBench(t)
	a := b.start(t)
	token := newToken(t, a, "n1")
	parsed := must(ca.ParseToken(token))
	if _, err := a.Attest(t.Context(), token, csr(t, nil), "10.0.0.7"); err != nil {
		t.Fatal(err)
	}
	key := strings.Split(string(must(os.ReadFile(b.keyFile()))), "\n")[1]
	check(t, os.WriteFile(filepath.Join(b.dir, "cut.key"), []byte(key[:40]), 0o600))
	cfg := b.config()
	cfg.KeyFile = filepath.Join(b.dir, "cut.key")
	_, keyErr := ca.New(t.Context(), cfg)
	_, usedErr := a.Redeem(t.Context(), token, "10.0.0.8")
	_, cutErr := ca.ParseToken(token[:len(token)-3])
	if keyErr == nil || usedErr == nil || cutErr == nil {
		t.Fatal("a refusal is missing")
	}
	shown := b.log.String() + keyErr.Error() + usedErr.Error() + cutErr.Error() +
		string(must(os.ReadFile(b.db.Place()))) + string(must(os.ReadFile(b.db.Place()+"-wal")))
	for name, secret := range map[string]string{
		"token": token[20:60], "token's secret": parsed.Secret.Reveal(), "key file": key[:30],
		"private key in DER": "\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01",
	} {
		if strings.Contains(shown, secret) {
			t.Errorf("the %s is shown", name)
		}
	}
}

func TestRunRenewsAndPrunes(t *testing.T) {
	b := newBench(t)
	cfg := b.config()
	a := must(ca.New(t.Context(), cfg))
	sign(t, a, pay, time.Hour)
	b.set(noon.Add(4 * 24 * time.Hour))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	waittest.Until(t, "all certificates are pruned",
		func() bool { return len(must(b.db.Certs(t.Context(), state.CertFilter{}))) == 0 })
	stop()
	check(t, <-done)
	if mid := must(b.db.Blob(t.Context(), "intermediate")); !mid.Created.Equal(noon.Add(4 * 24 * time.Hour)) {
		t.Errorf("the intermediate is from %s", mid.Created)
	}
}

func newToken(t testing.TB, a *ca.Authority, node string) string {
	t.Helper()
	issued, err := a.CreateToken(t.Context(), ca.TokenSpec{
		Node: node, Role: "node", Grant: grant.Grant{Identities: []string{"default/*"}},
		Addresses: []string{"10.0.0.1:15012"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return issued.Token.Reveal()
}

// csr is a request by key, or by a new P-256 key.
func csr(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	if key == nil {
		key = newKey()
	}
	return must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key))
}

func newKey() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func sign(t testing.TB, a *ca.Authority, id spiffe.ID, ttl time.Duration) []*x509.Certificate {
	t.Helper()
	chain, err := a.Sign(t.Context(), csr(t, nil), id, ttl, n1)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, chain)
}

func parse(t testing.TB, chain [][]byte) []*x509.Certificate {
	t.Helper()
	var all []*x509.Certificate
	for _, der := range chain {
		all = append(all, must(x509.ParseCertificate(der)))
	}
	return all
}

func parsePEM(t testing.TB, text []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(text)
	if block == nil || len(rest) > 0 {
		t.Fatalf("not one PEM block: %q", text)
	}
	return must(x509.ParseCertificate(block.Bytes))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
