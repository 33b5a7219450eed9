package sds

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/waittest"
)

// A root that signs no more is left soon, and a control plane that goes on under it is not asked without end.
func TestCertificatesFollowTheSigningRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		before, after := newSigner(t, 5*time.Minute), newSigner(t, 5*time.Minute)
		var signing atomic.Pointer[signer]
		signing.Store(before)
		joined, changed := make(chan struct{}), make(chan struct{}, 100)
		close(joined)
		s := New(Config{
			Log: slog.New(slog.DiscardHandler), Accounts: []ServiceAccount{{"default", "payments"}}, Joined: joined,
			Sign: func(ctx context.Context, namespace, account string) (*identity.SVID, error) {
				return signing.Load().sign(ctx, namespace, account)
			},
			Changed: func() { changed <- struct{}{} },
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		defer func() { cancel(); <-done }()

		s.SignedBy(spiffe.Fingerprint(before.root))
		if _, ok := s.require("spiffe://cards.example/ns/default/sa/payments"); !ok {
			t.Fatal("the identity is not served")
		}
		wait := func(what, root string) {
			t.Helper()
			select {
			case <-changed:
			case <-time.After(15 * time.Second):
				t.Fatal("no certificate: " + what)
			}
			if got := s.Certs()[0].Root; got != root {
				t.Errorf("%s: under %s, want %s", what, got, root)
			}
		}
		wait("the first", spiffe.Fingerprint(before.root))
		signing.Store(after)
		s.SignedBy(spiffe.Fingerprint(after.root))
		wait("after the root changed", spiffe.Fingerprint(after.root))

		s.SignedBy(strings.Repeat("0", 64)) // one that never signs
		waittest.Advance(2 * time.Second)
		if n := len(changed); n > 10 {
			t.Errorf("%d certificates in 2 s under a root that is not the one told", n)
		}
	})
}
