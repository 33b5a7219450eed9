// Package sds supplies Envoy with the certificates of the identities on this node, and renews them. Private keys are
// made here, stay in memory, and are sent only to this node's own Envoy.
package sds

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/identity"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/wellknown"
)

// ServiceAccount names one identity without its trust domain, which is known only after joining.
type ServiceAccount struct{ Namespace, Name string }

// Config of a Store.
type Config struct {
	Log *slog.Logger
	// Accounts that live on this node; no others are served.
	Accounts []ServiceAccount
	// Sign gets a certificate for a new key.
	Sign func(ctx context.Context, namespace, serviceAccount string) (*identity.SVID, error)
	// Joined is closed when Sign can work.
	Joined <-chan struct{}
	// Changed is called after a certificate came or was renewed.
	Changed func()
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// lookAgain is how often the clock is read while waiting for a certificate to be due, since it may be set.
const lookAgain = time.Second

// Store holds the certificates in use.
type Store struct {
	cfg      Config
	requests chan spiffe.ID // identities asked for the first time

	mu        sync.Mutex // guards what follows
	svids     map[spiffe.ID]*identity.SVID
	asked     map[spiffe.ID]bool
	roots     []*x509.Certificate // from SetRoots, or as they came with the newest certificate
	rootsTold bool
	changed   chan struct{} // closed and replaced at every change
	limit     limit
	signing   identity.Signing // guards itself
}

// limit is how long certificates may live, and since when.
type limit struct {
	life    time.Duration // 0: not known yet
	since   time.Time
	changed chan struct{} // closed and replaced at every change
}

// New makes a store without certificates. They are requested when Envoy first wants them.
func New(cfg Config) *Store {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Store{
		cfg: cfg, requests: make(chan spiffe.ID, len(cfg.Accounts)),
		svids: map[spiffe.ID]*identity.SVID{}, asked: map[spiffe.ID]bool{}, changed: make(chan struct{}),
		limit: limit{changed: make(chan struct{})},
	}
}

// Run asks for certificates and renews them until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case id := <-s.requests:
				g.Go(func() error { return s.maintain(ctx, id) })
			}
		}
	})
	return g.Wait()
}

// Certs lists what is in use, by SPIFFE ID.
func (s *Store) Certs() []agentapi.CertState {
	s.mu.Lock()
	defer s.mu.Unlock()
	var states []agentapi.CertState
	for _, svid := range s.svids {
		states = append(states, svid.State())
	}
	slices.SortFunc(states, func(a, b agentapi.CertState) int { return strings.Compare(a.SPIFFEID, b.SPIFFEID) })
	return states
}

// require registers interest in a secret name; false when it is not this node's to serve.
func (s *Store) require(name string) (spiffe.ID, bool) {
	id, account, ok := parseName(name)
	if !ok || !slices.Contains(s.cfg.Accounts, account) {
		return spiffe.ID{}, false
	}
	s.mu.Lock()
	first := !s.asked[id] && len(s.asked) < cap(s.requests)
	if first {
		s.asked[id] = true
	}
	known := s.asked[id]
	s.mu.Unlock()
	if first {
		s.requests <- id // has room: at most one per account
	}
	return id, known
}

// parseName parses a secret's name.
func parseName(name string) (spiffe.ID, ServiceAccount, bool) {
	id, err := spiffe.Parse(strings.TrimSuffix(name, wellknown.WithRootSuffix))
	if err != nil {
		return spiffe.ID{}, ServiceAccount{}, false
	}
	namespace, account, ok := spiffe.WorkloadParts(id)
	return id, ServiceAccount{namespace, account}, ok
}

// current certificate of an identity, or nil; and a channel that is closed at the next change of any.
func (s *Store) current(ids []spiffe.ID) ([]*identity.SVID, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	svids := make([]*identity.SVID, len(ids))
	for i, id := range ids {
		svids[i] = s.svids[id]
	}
	return svids, s.changed
}

func (s *Store) put(id spiffe.ID, svid *identity.SVID) {
	s.mu.Lock()
	s.svids[id] = svid
	if !s.rootsTold {
		s.roots = inOrder(svid.Roots)
	}
	s.announce()
	s.mu.Unlock()
	s.cfg.Changed()
}

// maintain renews one identity's certificate in time.
func (s *Store) maintain(ctx context.Context, id spiffe.ID) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.cfg.Joined:
	}
	wait := retry.Backoff{Min: 100 * time.Millisecond, Max: 15 * time.Second}
	for {
		svid, err := s.issue(ctx, id)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.cfg.Log.Warn("certificate not issued, trying again", "identity", id.String(), "error", err)
			if err := retry.Sleep(ctx, wait.Next()); err != nil {
				return err
			}
			continue
		}
		wait.Reset()
		s.put(id, svid)
		s.cfg.Log.Info("certificate issued",
			"identity", id.String(), "serial", svid.State().Serial, "expires", svid.Leaf().NotAfter)
		if err := s.waitUntilDue(ctx, svid, rand.Float64()*2-1); err != nil {
			return err
		}
	}
}

// Limit sets how long certificates live from now on. An older one that lives longer is replaced at once.
func (s *Store) Limit(life time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit.life == life {
		return
	}
	close(s.limit.changed)
	s.limit = limit{life: life, since: s.cfg.Now(), changed: make(chan struct{})}
}

// SignedBy sets the root under which certificates are issued now. Certificates under another are replaced soon.
func (s *Store) SignedBy(root string) { s.signing.Set(root, s.cfg.Now()) }

// waitUntilDue waits until the certificate is due.
func (s *Store) waitUntilDue(ctx context.Context, svid *identity.SVID, jitter float64) error {
	for {
		s.mu.Lock()
		l := s.limit
		s.mu.Unlock()
		signing := s.signing.Changed()
		d := s.signing.Wait(svid, jitter, s.cfg.Now())
		if d == 0 || l.exceededBy(svid, s.cfg.Now()) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.changed:
		case <-signing:
		case <-time.After(min(d, lookAgain)):
		}
	}
}

// exceededBy reports whether a certificate from before the limit lives longer than it allows; the slack is for
// rounding.
func (l limit) exceededBy(svid *identity.SVID, now time.Time) bool {
	const slack = 2 * time.Second
	return l.life > 0 && svid.Received.Before(l.since) && svid.Leaf().NotAfter.Sub(now) > l.life+slack
}

func (s *Store) issue(ctx context.Context, id spiffe.ID) (*identity.SVID, error) {
	namespace, account, _ := spiffe.WorkloadParts(id)
	svid, err := s.cfg.Sign(ctx, namespace, account)
	if err != nil {
		return nil, err
	}
	if svid.ID != id {
		return nil, fmt.Errorf("asked for %s, got a certificate of %s", id, svid.ID)
	}
	return svid, nil
}
