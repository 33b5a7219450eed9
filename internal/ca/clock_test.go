package ca_test

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/clocktest"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// TestTheClockIsSet sets the control plane's clock, and then sets it back. What it issues is good at the moment of
// issue and for as long as was asked for, and not one second longer; its own certificate is one of these days.
func TestTheClockIsSet(t *testing.T) {
	for _, step := range []time.Duration{5 * time.Minute, -5 * time.Minute, 24 * time.Hour, -24 * time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			clock := clocktest.New(t)
			b := newBench(t)
			cfg := b.config()
			cfg.Now = clock.Now
			a := must(ca.New(t.Context(), cfg))
			own := must(a.Identity(t.Context(), spiffe.Control(cards)))
			for _, by := range []time.Duration{0, step, -step} {
				clock.Step(by)
				chain := sign(t, a, pay, time.Hour)
				goodFor(t, a, clock.Now(), time.Hour, chain)
				shown := must(own.GetCertificate(nil))
				goodFor(t, a, clock.Now(), 0, parse(t, shown.Certificate))
			}
		})
	}
}

// goodFor: a chain that holds now, whose leaf lives for so long and no longer; 0 asks for no more than that it holds.
func goodFor(t *testing.T, a *ca.Authority, now time.Time, life time.Duration, chain []*x509.Certificate) {
	t.Helper()
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range a.RootCertificates() {
		roots.AddCert(c)
	}
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}); err != nil {
		t.Errorf("at %s: %v", now, err)
	}
	if left := chain[0].NotAfter.Sub(now); life > 0 &&
		(left > life || left < life-time.Minute || now.Sub(chain[0].NotBefore) > 2*time.Minute) {
		t.Errorf("at %s one for %s was issued from %s to %s", now, life, chain[0].NotBefore, chain[0].NotAfter)
	}
}

// TestNoTokenComesBackWithTheClock: a token that was used, or whose end was seen, is of no more use whatever the clock
// says; one that is young is, as long as the clock says so.
func TestNoTokenComesBackWithTheClock(t *testing.T) {
	clock := clocktest.New(t)
	b := newBench(t)
	cfg := b.config()
	cfg.Now = clock.Now
	a := must(ca.New(t.Context(), cfg))
	make := func(node string) string {
		issued := must(a.CreateToken(t.Context(),
			ca.TokenSpec{
				Node: node, Role: snapshot.RoleNode, TTL: 10 * time.Minute, Addresses: []string{"10.0.0.1:15012"},
			}))
		return issued.Token.Reveal()
	}
	used, tried := make("used"), make("tried")
	redeem := func(token string) error { _, err := a.Redeem(t.Context(), token, "10.0.0.7"); return err }
	if err := redeem(used); err != nil {
		t.Fatal(err)
	}
	clock.Step(24 * time.Hour)
	if err := redeem(tried); !errors.Is(err, ca.ErrTokenExpired) {
		t.Errorf("a day later: %v", err)
	}
	for _, by := range []time.Duration{
		-24 * time.Hour, -24 * time.Hour, 24 * time.Hour, 5 * time.Minute,
		-10 * time.Minute,
	} {
		clock.Step(by)
		if err := redeem(tried); !errors.Is(err, ca.ErrTokenExpired) {
			t.Errorf("set by %s: the expired one: %v", by, err)
		}
		if err := redeem(used); !errors.Is(err, ca.ErrTokenUsed) {
			t.Errorf("set by %s: the used one: %v", by, err)
		}
		if err := redeem(make("young")); err != nil {
			t.Errorf("set by %s: a new one: %v", by, err)
		}
	}
}
