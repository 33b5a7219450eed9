package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
)

// Source is an identity of the control plane itself. It renews its certificate on first use after half its lifetime,
// and at every step of a root rotation.
type Source struct {
	authority *Authority
	id        spiffe.ID
	dns       []string
	cert      atomic.Pointer[ownCert]
	mu        sync.Mutex // guards the renewal of cert
}

// ownCert is immutable.
type ownCert struct {
	plain      *tls.Certificate
	withRoot   *tls.Certificate
	under      *trust
	from       time.Time
	renewAt    time.Time
	retryAfter time.Time // no renewal before, after a failed one
	notAfter   time.Time
}

// Identity creates an identity of the control plane.
func (a *Authority) Identity(ctx context.Context, id spiffe.ID, extraDNS ...string) (*Source, error) {
	s := &Source{authority: a, id: id, dns: extraDNS}
	_, err := s.current(ctx)
	return s, err
}

// ID returns the SPIFFE ID.
func (s *Source) ID() spiffe.ID { return s.id }

// GetCertificate is for tls.Config on a server. The chain includes the root, so that a client that knows only the
// root's fingerprint can verify it.
func (s *Source) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, err := s.current(context.Background()) // a renewal serves all handshakes, even if this one is cancelled
	if err != nil {
		return nil, err
	}
	return c.withRoot, nil
}

// GetClientCertificate is for tls.Config on a client.
func (s *Source) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	c, err := s.current(context.Background()) // as above
	if err != nil {
		return nil, err
	}
	return c.plain, nil
}

func (s *Source) current(ctx context.Context) (*ownCert, error) {
	if c := s.cert.Load(); c.isUsable(s.authority) {
		return c, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.cert.Load()
	now := s.authority.now()
	if old.isUsable(s.authority) {
		return old, nil
	}
	c, err := s.renew(ctx)
	if err == nil {
		s.cert.Store(c)
		return c, nil
	}
	if old != nil && now.Before(old.notAfter) && !now.Before(old.from) {
		s.authority.cfg.Log.Error("own certificate not renewed, the old one goes on", "id", s.id.String(), "error", err,
			"not_after", old.notAfter)
		again := *old
		again.renewAt, again.retryAfter = now.Add(retryAfter), now.Add(retryAfter)
		s.cert.Store(&again)
		return &again, nil
	}
	return nil, fmt.Errorf("identity %s: %w", s.id, err)
}

// isUsable reports whether c is valid and need not be renewed yet.
func (c *ownCert) isUsable(a *Authority) bool {
	now := a.now()
	return c != nil && !now.Before(c.from) && now.Before(c.renewAt) &&
		(c.under == a.mat.Load().trust || now.Before(c.retryAfter))
}

func (s *Source) renew(ctx context.Context) (*ownCert, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	chain, under, err := s.authority.issue(ctx,
		leaf{pub: key.Public(), id: s.id, dns: s.dns, Holder: Holder{Generation: NewGeneration()}})
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("parse own certificate: %w", err)
	}
	now := s.authority.now().Round(0) // strip the monotonic clock: certificates use wall-clock time
	return &ownCert{
		plain: &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: parsed},
		withRoot: &tls.Certificate{
			Certificate: append(slices.Clone(chain), under.rootsInChain()...), PrivateKey: key, Leaf: parsed,
		},
		under:    under,
		from:     parsed.NotBefore,
		renewAt:  now.Add(parsed.NotAfter.Sub(now) / 2),
		notAfter: parsed.NotAfter,
	}, nil
}

// rootsInChain returns the certificates that lead to a root known only by its fingerprint: the signing root and, during
// a rotation, the new root cross-signed by the old one, and the old root.
func (t *trust) rootsInChain() [][]byte {
	if t.cross == nil {
		return [][]byte{t.roots[0].Raw}
	}
	return [][]byte{t.cross.Raw, t.roots[0].Raw, t.roots[1].Raw}
}
