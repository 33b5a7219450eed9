package sds

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"isthmus.dev/isthmus/internal/clocktest"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/waittest"
)

// TestTheClockIsSet sets the clock of the whole mesh, this node's and the control plane's. Whatever the calendar says,
// the certificate in use is one of these days within seconds, renewals come at half a life as ever, and setting the
// clock back leaves all as it was.
func TestTheClockIsSet(t *testing.T) {
	const life = 40 * time.Minute
	for _, step := range []time.Duration{5 * time.Minute, -5 * time.Minute, 24 * time.Hour, -24 * time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clock := clocktest.New(t)
				ca := newSigner(t, life)
				ca.now, ca.received = clock.Now, clock.Now
				s, id, calls := keeping(t, ca, clock)
				for _, by := range []time.Duration{0, step, -step} {
					waittest.Advance(3 * time.Minute)
					before := calls.Load()
					clock.Step(by)
					waittest.Advance(2 * time.Second)
					svids, changed := s.current([]spiffe.ID{id})
					leaf, now := svids[0].Leaf(), clock.Now()
					if now.Before(leaf.NotBefore) || now.After(leaf.NotAfter) {
						t.Errorf("after a step of %s, at %s, in use is one from %s to %s",
							by, now, leaf.NotBefore, leaf.NotAfter)
					}
					if n := calls.Load() - before; n > 1 {
						t.Errorf("after a step of %s, %d certificates were asked for", by, n)
					}
					began := time.Now()
					<-changed
					if waited := time.Since(began); waited > 23*time.Minute {
						t.Errorf("after a step of %s, the next of %s came after %s", by, life, waited)
					}
				}
			})
		})
	}
}

// TestAClockOfItsOwn steps this node's clock alone: what the control plane issues is then not of this node's days and
// is refused, and the one in use stays until the clocks agree again.
func TestAClockOfItsOwn(t *testing.T) {
	for _, step := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				clock := clocktest.New(t)
				ca := newSigner(t, 40*time.Minute)
				ca.received = clock.Now
				s, id, _ := keeping(t, ca, clock)
				first, _ := s.current([]spiffe.ID{id})
				clock.Step(step)
				waittest.Advance(time.Minute)
				if now, _ := s.current([]spiffe.ID{id}); now[0] != first[0] {
					t.Errorf("took one from %s to %s at %s",
						now[0].Leaf().NotBefore, now[0].Leaf().NotAfter, clock.Now())
				}
				clock.Step(-step)
				_, changed := s.current([]spiffe.ID{id})
				select {
				case <-changed:
				case <-time.After(time.Minute):
					t.Error("a minute after the clocks agreed nothing was issued")
				}
			})
		})
	}
}

// keeping is a store that holds one certificate, and how often it asked for one.
func keeping(t *testing.T, ca *signer, clock *clocktest.Clock) (*Store, spiffe.ID, *atomic.Int64) {
	calls := &atomic.Int64{}
	joined := make(chan struct{})
	close(joined)
	s := New(Config{
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Accounts: []ServiceAccount{{"default", "pay"}},
		Joined: joined, Changed: func() {}, Now: clock.Now,
		Sign: func(ctx context.Context, namespace, account string) (*identity.SVID, error) {
			calls.Add(1)
			return ca.sign(ctx, namespace, account)
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	id, _ := s.require("spiffe://cards.example/ns/default/sa/pay")
	_, changed := s.current([]spiffe.ID{id})
	<-changed
	return s, id, calls
}
