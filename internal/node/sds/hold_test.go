package sds

import (
	"context"
	"crypto/x509"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
)

func TestHoldSharesOneCertificateAndKnowsTheRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, later := newSigner(t, 40*time.Minute), newSigner(t, time.Hour)
		joined := make(chan struct{})
		close(joined)
		s := New(Config{
			Log: slog.New(slog.DiscardHandler), Accounts: []ServiceAccount{{"default", "pay"}}, Joined: joined,
			Changed: func() {}, Sign: ca.sign,
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		id, err := spiffe.Parse("spiffe://cards.example/ns/default/sa/pay")
		if err != nil {
			t.Fatal(err)
		}
		h, ok := s.Acquire(id)
		if !ok || h.SVID != nil || len(h.Roots) != 0 {
			t.Errorf("at first: %v, %v", h, ok)
		}
		<-h.Changed
		h, _ = s.Acquire(id)
		envoys, _ := s.current([]spiffe.ID{id})
		if h.SVID == nil || h.SVID != envoys[0] || ca.n.Load() != 1 {
			t.Errorf("%d certificates signed for Envoy and the workload together", ca.n.Load())
		}
		if len(h.Roots) != 1 || !h.Roots[0].Equal(ca.root) {
			t.Errorf("roots that came with the certificate: %d", len(h.Roots))
		}
		s.SetRoots([]*x509.Certificate{ca.root, later.root})
		<-h.Changed
		h, _ = s.Acquire(id)
		if len(h.Roots) != 2 {
			t.Errorf("roots as told: %d", len(h.Roots))
		}
		s.SetRoots([]*x509.Certificate{later.root, ca.root}) // nothing new
		select {
		case <-h.Changed:
			t.Error("announced without a change")
		default:
		}
		<-h.Changed // the renewal, which comes with the one root that the signer knows
		if h, _ = s.Acquire(id); len(h.Roots) != 2 || ca.n.Load() != 2 {
			t.Errorf("after a renewal: %d roots, %d certificates", len(h.Roots), ca.n.Load())
		}
		other, err := spiffe.Parse("spiffe://cards.example/ns/default/sa/other")
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Acquire(other); ok {
			t.Error("an identity that is not this node's is held")
		}
		cancel()
		<-done
	})
}
