package sds

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/waittest"
)

func TestWantServesOnlyThisNodesIdentities(t *testing.T) {
	s := New(Config{
		Log:      slog.New(slog.DiscardHandler),
		Accounts: []ServiceAccount{{"default", "pay"}, {"default", "web"}},
	})
	for name, want := range map[string]bool{
		"spiffe://cards.example/ns/default/sa/pay":        true,
		"spiffe://cards.example/ns/default/sa/pay+root":   true,
		"spiffe://cards.example/ns/default/sa/other":      false,
		"spiffe://cards.example/ns/other/sa/pay":          false,
		"spiffe://cards.example/isthmus/node/n":           false,
		"spiffe://cards.example/ns/default/sa/pay/more":   false,
		"spiffe://cards.example/ns/default/sa/pay+root+x": false,
		"bundle/cards.example":                            false,
		"":                                                false,
	} {
		if _, got := s.require(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
}

// Another trust domain's identity is wanted until the control plane signs one of another name, which is then refused.
func TestWantIsBounded(t *testing.T) {
	s := New(Config{Log: slog.New(slog.DiscardHandler), Accounts: []ServiceAccount{{"default", "pay"}}})
	s.require("spiffe://a.example/ns/default/sa/pay")
	if _, ok := s.require("spiffe://b.example/ns/default/sa/pay"); ok {
		t.Error("more identities than accounts")
	}
}

func TestStoreAsksOnceRetriesAndRenews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := newSigner(t, 40*time.Minute)
		var calls atomic.Int64
		joined := make(chan struct{})
		close(joined)
		s := New(Config{
			Log: slog.New(slog.DiscardHandler), Accounts: []ServiceAccount{{"default", "pay"}}, Joined: joined,
			Changed: func() {},
			Sign: func(ctx context.Context, namespace, account string) (*identity.SVID, error) {
				if calls.Add(1) <= 2 {
					return nil, errors.New("not now")
				}
				return ca.sign(ctx, namespace, account)
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		if synctest.Wait(); calls.Load() != 0 {
			t.Error("asked before Envoy did")
		}
		id, _ := s.require("spiffe://cards.example/ns/default/sa/pay")
		s.require("spiffe://cards.example/ns/default/sa/pay+root")
		waittest.Advance(time.Second)
		first, changed := s.current([]spiffe.ID{id})
		if first[0] == nil || calls.Load() != 3 {
			t.Fatalf("%d calls, got %v", calls.Load(), first[0])
		}
		began := time.Now()
		<-changed
		second, _ := s.current([]spiffe.ID{id})
		if second[0] == first[0] || calls.Load() != 4 || len(s.Certs()) != 1 {
			t.Errorf("%d calls after a renewal, %d certificates", calls.Load(), len(s.Certs()))
		}
		if after := time.Since(began); after < 17*time.Minute || after > 23*time.Minute {
			t.Errorf("renewed after %v of 40 minutes", after)
		}
		cancel()
		<-done
	})
}
