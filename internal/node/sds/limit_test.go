package sds

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/node/identity"
)

// signer issues certificates of the present life.
type signer struct {
	t    *testing.T
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	life atomic.Int64
	n    atomic.Int64
	// now is the signer's clock, received that of who asked.
	now, received func() time.Time
}

func newSigner(t *testing.T, life time.Duration) *signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: time.Now().Add(1000 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{t: t, root: root, key: key, now: time.Now, received: time.Now}
	s.life.Store(int64(life))
	return s
}

func (s *signer) sign(_ context.Context, namespace, account string) (*identity.SVID, error) {
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	now := s.now()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(100 + s.n.Add(1)), NotBefore: now.Add(-time.Minute),
		NotAfter: now.Add(time.Duration(s.life.Load())),
		URIs:     []*url.URL{{Scheme: "spiffe", Host: "cards.example", Path: "/ns/" + namespace + "/sa/" + account}},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, s.root, key.Public(), s.key)
	if err != nil {
		return nil, err
	}
	return identity.NewSVID(key, [][]byte{der}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.root.Raw}),
		s.received())
}

func TestAShorterLifeIsTakenUpAtOnce(t *testing.T) {
	ca := newSigner(t, 5*time.Minute)
	joined := make(chan struct{})
	close(joined)
	changed := make(chan struct{}, 100)
	s := New(Config{
		Log: slog.New(slog.DiscardHandler), Accounts: []ServiceAccount{{"default", "payments"}},
		Sign: ca.sign, Joined: joined, Changed: func() { changed <- struct{}{} },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()

	s.Limit(5 * time.Minute)
	if _, ok := s.require("spiffe://cards.example/ns/default/sa/payments"); !ok {
		t.Fatal("the identity is not served")
	}
	wait := func(what string) {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			t.Fatal("no certificate: " + what)
		}
	}
	wait("the first")
	ca.life.Store(int64(20 * time.Second))
	s.Limit(20 * time.Second)
	wait("after the life was shortened")
	if got := s.Certs()[0].Serial; got != "66" { // the second one issued, 102
		t.Errorf("serial %s", got)
	}
	// The control plane goes on issuing long ones: that is its affair, and no reason to ask without end.
	ca.life.Store(int64(5 * time.Minute))
	s.Limit(10 * time.Second)
	wait("after the life was shortened again")
	s.Limit(time.Hour)
	select {
	case <-changed:
		t.Error("a certificate was replaced without need")
	case <-time.After(300 * time.Millisecond):
	}
}
