// Package ca is the certificate authority of one mesh. It keeps the root, signs X.509-SVIDs with an intermediate that
// it renews, lets nodes join with one-time tokens, and builds the TLS settings of all parties.
//
// The caller of Sign decides the content of a certificate, never the request. Private keys are stored encrypted and
// never leave the package.
package ca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// Store is the authority's storage.
type Store interface {
	materialStore
	rotationStore
	tokenStore
}

type rotationStore interface {
	Rotation(context.Context) (state.Rotation, error)
	PutRotation(ctx context.Context, from string, r state.Rotation, put []state.Blob, remove []string) error
}

type materialStore interface {
	PutBlob(ctx context.Context, b state.Blob, was []byte) error
	Blob(ctx context.Context, name string) (state.Blob, error)
	AddCert(ctx context.Context, c state.Cert, generation string) error
	PruneCerts(ctx context.Context, before time.Time) error
	Prune(ctx context.Context, before time.Time) error
}

type tokenStore interface {
	AddToken(context.Context, state.Token) error
	UseToken(ctx context.Context, id string, hash [32]byte, by string, now time.Time) (state.Token, error)
	EndExpired(ctx context.Context, now time.Time) error
	AttestNode(context.Context, state.Node) error
}

// Config is what an authority needs.
type Config struct {
	TrustDomain spiffe.TrustDomain
	Store       Store
	// KeyFile holds the key that encrypts private keys in the store. It is created at the first start.
	KeyFile string
	// Operator names the operator's own CA files; empty: the authority makes its root itself.
	Operator OperatorFiles
	// LeafTTL is the default lifetime of a certificate. Default 1h.
	LeafTTL time.Duration
	// IntermediateTTL is the lifetime of the signing certificate. Default 7 days.
	IntermediateTTL time.Duration
	// Skew is how far the clocks of the mesh may differ, beyond the minute that is always allowed.
	Skew time.Duration
	// Retention is how long used tokens and expired administrator certificates are kept. Default 24h.
	Retention time.Duration
	// Tidies reports whether this control plane removes expired records. Default: it does.
	Tidies func() bool
	// Now returns the time. Default time.Now.
	Now func() time.Time
	Log *slog.Logger
}

// certRetention is how long a certificate's record is kept after it expires, to allow for clock differences.
const certRetention = 10 * time.Minute

// Authority signs for one trust domain.
type Authority struct {
	cfg Config
	now func() time.Time
	mat atomic.Pointer[material]
	key sealKey
	mu  sync.Mutex // guards the renewal of mat and the steps of a rotation
}

// New loads the root from the store and the operator's files, or makes it at the first start.
func New(ctx context.Context, cfg Config) (*Authority, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	a := &Authority{cfg: cfg, now: cfg.Now}
	m, err := a.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("certificate authority of %s: %w", cfg.TrustDomain.Name(), err)
	}
	a.mat.Store(m)
	return a, nil
}

func (c Config) complete() (Config, error) {
	if c.TrustDomain.IsZero() || c.Store == nil || c.Log == nil {
		return c, errors.New("certificate authority: trust domain, store and log must be set")
	}
	c.LeafTTL = durationOr(c.LeafTTL, time.Hour)
	c.IntermediateTTL = durationOr(c.IntermediateTTL, 7*24*time.Hour)
	c.Retention = durationOr(c.Retention, 24*time.Hour)
	if c.Tidies == nil {
		c.Tidies = func() bool { return true }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.IntermediateTTL < 4*c.LeafTTL {
		return c,
			fmt.Errorf("certificate authority: the intermediate's life %s must be at least 4 times the certificates' life %s: lengthen the one or shorten the other", c.IntermediateTTL, c.LeafTTL)
	}
	return c, nil
}

func durationOr(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// TrustDomain returns the trust domain of the authority.
func (a *Authority) TrustDomain() spiffe.TrustDomain { return a.cfg.TrustDomain }

// Roots returns the root certificates that the mesh trusts, PEM, the signing one first.
func (a *Authority) Roots() []byte { return bytes.Clone(a.mat.Load().rootsPEM) }

// RootFingerprint returns the SHA-256 of the signing root's DER, hex.
func (a *Authority) RootFingerprint() string { return spiffe.Fingerprint(a.mat.Load().roots[0]) }

// RootNotAfter returns when the signing root expires.
func (a *Authority) RootNotAfter() time.Time { return a.mat.Load().roots[0].NotAfter }

// Reload takes over changes made by other control planes of this mesh.
func (a *Authority) Reload(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reload(ctx)
}

// Run renews the signing certificate and removes expired records until ctx is done.
func (a *Authority) Run(ctx context.Context) error {
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	var tidied time.Time
	for {
		if _, err := a.current(ctx); err != nil {
			a.cfg.Log.Error("signing certificate not renewed", "error", err)
		}
		if !a.cfg.Tidies() {
			select {
			case <-ctx.Done():
				return nil
			case <-minute.C:
			}
			continue
		}
		now := a.now()
		if err := a.cfg.Store.EndExpired(ctx, now); err != nil && ctx.Err() == nil {
			a.cfg.Log.Error("expired tokens not closed", "error", err)
		}
		if err := a.cfg.Store.PruneCerts(ctx, now.Add(-certRetention)); err != nil && ctx.Err() == nil {
			a.cfg.Log.Error("ended certificates not pruned", "error", err)
		}
		if now.Sub(tidied).Abs() >= time.Hour {
			tidied = now
			a.tidy(ctx, now)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-minute.C:
		}
	}
}

func (a *Authority) tidy(ctx context.Context, now time.Time) {
	if err := a.cfg.Store.Prune(ctx, now.Add(-a.cfg.Retention)); err != nil && ctx.Err() == nil {
		a.cfg.Log.Error("what ended long ago not pruned", "error", err)
	}
	m := a.mat.Load()
	for _, c := range []*x509.Certificate{m.roots[0], m.signer} {
		if left := c.NotAfter.Sub(now); left < c.NotAfter.Sub(c.NotBefore)/10 {
			a.cfg.Log.Warn("a CA certificate runs out", "subject", c.Subject.CommonName, "not_after", c.NotAfter)
		}
	}
}
