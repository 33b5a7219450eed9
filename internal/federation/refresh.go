package federation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/spiffe"
)

func (s *Service) meshPeer(name string) *v1alpha1.MeshPeer {
	for _, p := range snapshot.Of[*v1alpha1.MeshPeer](s.snapshotConfig()) {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// askPeer sends one request to a peer's control plane on a new connection.
func (s *Service) askPeer(ctx context.Context, p *v1alpha1.MeshPeer, e exchange) (*reply, error) {
	limited, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	a, err := s.reachPeer(limited, p)
	if err != nil {
		return nil, err
	}
	e.host = sni.Control(p.Spec.KnownAs, p.Spec.TrustDomain)
	r, err := ask(limited, a.conn, e)
	if err != nil && !errors.As(err, new(remoteRefusal)) && ctx.Err() == nil {
		s.memory.recordDeadEnd(ControlSNI(p.Name), a.gateway, s.Now())
	}
	return r, err
}

// fetchBundle fetches the bundle from the peer's endpoint (https_spiffe: authenticated by the roots known so far).
func (s *Service) fetchBundle(ctx context.Context, p *v1alpha1.MeshPeer) (Bundle, error) {
	r, err := s.askBundle(ctx, p)
	if err != nil {
		return Bundle{}, fmt.Errorf("fetch bundle: %w", err)
	}
	td, err := spiffe.ParseTrustDomain(p.Spec.TrustDomain)
	if err != nil {
		return Bundle{}, err
	}
	return ParseBundle(td, r.body, s.Now())
}

// checkReachable checks whether a peer answers whose roots are not refreshed.
func (s *Service) checkReachable(ctx context.Context, p *v1alpha1.MeshPeer) error {
	_, err := s.askBundle(ctx, p)
	return err
}

// askBundle fetches a peer's bundle and learns whether the peer admits this mesh's calls.
func (s *Service) askBundle(ctx context.Context, p *v1alpha1.MeshPeer) (*reply, error) {
	r, err := s.askPeer(ctx, p, exchange{method: http.MethodGet, path: PathBundle, limit: MaxBundleBytes})
	if err == nil {
		s.updateHealth(p.Name, func(h *Health) { h.ClosedThere = r.header.Get(headerCalls) == callsRefused })
		s.recordHeldReport(p.Name, r.header)
	}
	return r, err
}

// takeBundle stores a fetched bundle if it may follow the previous one.
func (s *Service) takeBundle(ctx context.Context, name string, b Bundle) error {
	s.making.Lock()
	defer s.making.Unlock()
	all, err := s.peers(ctx)
	if err != nil {
		return err
	}
	p, ok := all[name]
	if !ok || p.object.Spec.TrustDomain != b.TrustDomain.Name() {
		return fmt.Errorf("peer %s has changed meanwhile", name)
	}
	if err := s.checkRoots(all, name, b.Roots); err != nil {
		return fmt.Errorf("bundle refused: %w", err)
	}
	if err := follows(p, b, s.Now()); err != nil {
		return fmt.Errorf("bundle refused: %w", err)
	}
	roots := peerrules.Learned(p.object, distinct(b.Roots))
	store, leads := s.Leading()
	if !leads {
		return errNotLeading
	}
	if err := store.SetPeerBundle(ctx, name, roots, b.Sequence, p.state.BundleSequence, s.Now()); err != nil {
		return fmt.Errorf("keep bundle: %w", err)
	}
	return nil
}

var errNotLeading = errors.New("another control plane of this mesh keeps up with peers now")

var errEquivocates = errors.New("its sequence is the same as before, its roots are not")

// follows checks the order: a sequence number never goes back and always denotes the same set of roots. A number
// accepted while our clock was ahead does not count.
func follows(p peer, b Bundle, now time.Time) error {
	if !peerrules.Adopted(p.object, p.state) || p.state.BundleSequence == 0 || inFuture(p.state.BundleSequence, now) {
		return nil
	}
	switch {
	case b.Sequence < p.state.BundleSequence:
		return fmt.Errorf("its sequence went back from %d to %d: if the peer was built anew, peer with it anew",
			p.state.BundleSequence, b.Sequence)
	case b.Sequence > p.state.BundleSequence:
		return nil
	}
	held, err := peerrules.ParseRoots(peerrules.Roots(p.object, p.state))
	if err != nil || !sameRoots(held, b.Roots) {
		return errEquivocates
	}
	return nil
}

// adoptAll adopts the roots in MeshPeers, unless newer ones were already learned from them.
func (s *Service) adoptAll(ctx context.Context) {
	s.making.Lock()
	defer s.making.Unlock()
	all, err := s.peers(ctx)
	if err != nil {
		s.Log.Error("peers not read", "error", err)
		return
	}
	for name, p := range all {
		if !p.fromFile || p.state.Revoked || peerrules.Adopted(p.object, p.state) || p.object.Spec.Bundle.Inline == "" {
			continue
		}
		if err := s.adopt(ctx, all, name, p); err != nil {
			s.updateHealth(name, func(h *Health) { h.AdoptError = err.Error() })
			continue
		}
		s.updateHealth(name, func(h *Health) { h.AdoptError = "" })
		s.Log.Info("peer's roots taken from its MeshPeer", "peer", name)
	}
}

func (s *Service) adopt(ctx context.Context, all map[string]peer, name string, p peer) error {
	roots, err := peerrules.ParseRoots([]byte(p.object.Spec.Bundle.Inline))
	if err != nil {
		return fmt.Errorf("read spec.bundle.inline: %w", err)
	}
	if f := p.object.Spec.Bundle.Fingerprint; f != "" && !(Bundle{Roots: roots}).has(f) {
		return errors.New("none of the roots in spec.bundle.inline has the SHA-256 of spec.bundle.fingerprint: give the right one of the two")
	}
	return s.adoptRoots(ctx, all, name, p, roots)
}

// adoptRoots stores first roots and drops what was learned from others. The caller holds making.
func (s *Service) adoptRoots(
	ctx context.Context, all map[string]peer, name string, p peer, roots []*x509.Certificate,
) error {
	if err := s.checkRoots(all, name, roots); err != nil {
		return err
	}
	store, leads := s.Leading()
	if !leads {
		return errNotLeading
	}
	if err := store.AdoptPeerRoots(ctx, name, peerrules.Learned(p.object, distinct(roots)), s.Now()); err != nil {
		return fmt.Errorf("keep roots: %w", err)
	}
	return nil
}

// redateFutureRoots sets confirmation times in the future to now. The clock was set back, and the roots would otherwise
// stay valid for longer than their maximum age.
func (s *Service) redateFutureRoots(ctx context.Context) {
	s.making.Lock()
	defer s.making.Unlock()
	store, leads := s.Leading()
	if !leads {
		return
	}
	now := s.Now()
	for name, kept := range s.Snapshot().Peers {
		if kept.Roots == nil || kept.Revoked || kept.BundleTime.Sub(now) < time.Second { // else rounding
			continue
		}
		if err := store.SetPeerBundle(ctx, name, kept.Roots, kept.BundleSequence, kept.BundleSequence,
			now); err != nil {
			s.Log.Error("peer's roots not dated back to now", "peer", name, "error", err)
			continue
		}
		s.Log.Warn("the clock was set back: peer's roots grow old from now on", "peer", name, "confirmed",
			kept.BundleTime)
	}
}
