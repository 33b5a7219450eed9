package sds

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/spiffe"
)

// signer issues certificates of an hour under a root of its own; fails counts down the refusals that come first.
type signer struct {
	t     *testing.T
	fails atomic.Int32
	calls atomic.Int32
}

func (s *signer) sign(_ context.Context, namespace, account string) (*identity.SVID, error) {
	s.calls.Add(1)
	if s.fails.Add(-1) >= 0 {
		return nil, errors.New("not now")
	}
	key, err := identity.NewKey()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(9 * time.Hour), IsCA: true, BasicConstraintsValid: true}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(int64(s.calls.Load())), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "t.example", Path: "/ns/" + namespace + "/sa/" + account}},
	}, root, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return identity.NewSVID(key, [][]byte{leaf}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER}), now)
}

func newStore(s *signer) *Store {
	joined := make(chan struct{})
	close(joined)
	return New(Config{
		Log: slog.New(slog.DiscardHandler), Accounts: []ServiceAccount{{"default", "pay"}, {"default", "web"}},
		Sign: s.sign, Joined: joined, Changed: func() {},
	})
}

func TestWantServesOnlyThisNodesIdentities(t *testing.T) {
	s := newStore(&signer{t: t})
	for name, want := range map[string]bool{
		"spiffe://t.example/ns/default/sa/pay":        true,
		"spiffe://t.example/ns/default/sa/pay+root":   true,
		"spiffe://t.example/ns/default/sa/other":      false,
		"spiffe://t.example/ns/other/sa/pay":          false,
		"spiffe://t.example/isthmus/node/n":           false,
		"spiffe://t.example/ns/default/sa/pay/more":   false,
		"spiffe://t.example/ns/default/sa/pay+root+x": false,
		"bundle/t.example":                            false,
		"":                                            false,
	} {
		if _, got := s.want(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

func TestStoreAsksOnceRetriesAndRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sign := &signer{t: t}
		sign.fails.Store(2)
		s := newStore(sign)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		if synctest.Wait(); sign.calls.Load() != 0 {
			t.Error("asked before Envoy did")
		}
		id, _ := s.want("spiffe://t.example/ns/default/sa/pay")
		s.want("spiffe://t.example/ns/default/sa/pay+root")
		time.Sleep(time.Second)
		svids, changed := s.current([]spiffe.ID{id})
		if svids[0] == nil || sign.calls.Load() != 3 {
			t.Fatalf("%d calls, got %v", sign.calls.Load(), svids[0])
		}
		<-changed
		if renewed, _ := s.current([]spiffe.ID{id}); renewed[0] == svids[0] || sign.calls.Load() != 4 {
			t.Errorf("%d calls after a renewal", sign.calls.Load())
		}
		if n := len(s.Certs()); n != 1 {
			t.Errorf("%d certificates", n)
		}
		cancel()
		<-done
	})
}
