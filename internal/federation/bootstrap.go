package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/spiffe"
)

// retryEvery is the pause between attempts while gateways receive their configuration.
const retryEvery = 150 * time.Millisecond

// bootstrap dials an address that is not trusted yet through one of our gateways, as BootstrapSNI(id). It repeats
// attempt there until that succeeds, fails finally, or the time is up.
func (s *Service) bootstrap(
	ctx context.Context, addr string, limit time.Duration, attempt func(ctx context.Context, id string) error,
) error {
	id := newID()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if err := s.Store.PutBootstrap(ctx, snapshot.Bootstrap{ID: id, Address: addr},
		s.Now().Add(s.AcceptTimeout)); err != nil {
		return finalError{fmt.Errorf("keep acceptance: %w", err)}
	}
	defer func() {
		if err := s.Store.DeleteBootstrap(context.WithoutCancel(ctx), id); err != nil {
			s.Log.Warn("acceptance not cleared away, it ends by itself", "bootstrap", id, "error", err)
		}
	}()
	var err error
	for {
		last := attempt(ctx, id)
		if last == nil || isFinal(last) {
			return last
		}
		if err == nil || ctx.Err() == nil {
			err = last // an earlier error says more than a timeout
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryEvery):
		}
	}
}

// addressTimeout returns how long one of several addresses may take before the next is tried.
func (s *Service) addressTimeout(addresses int) time.Duration {
	return min(exchangeTimeout, s.AcceptTimeout/2, max(s.AcceptTimeout/time.Duration(addresses+2), 4*time.Second))
}

// fetchable reports whether a MeshPeer states only the fingerprint of its first root.
func fetchable(p *v1alpha1.MeshPeer) bool {
	return p != nil && p.Spec.Bundle.Inline == "" && p.Spec.Bundle.Fingerprint != ""
}

// fetchRoot learns a peer's first root from the TLS handshake of its gateway, if the MeshPeer states the fingerprint.
// The peer must know our roots already; otherwise it does not serve our name. So one of the two meshes must state its
// roots inline.
func (s *Service) fetchRoot(ctx context.Context, p *v1alpha1.MeshPeer) error {
	td, err := spiffe.ParseTrustDomain(p.Spec.TrustDomain)
	if err != nil {
		return fmt.Errorf("read trust domain of peer: %w", err)
	}
	err = errors.New("no gateway address")
	for _, addr := range p.Spec.GatewayAddresses {
		var root *x509.Certificate
		err = s.bootstrap(ctx, addr, s.addressTimeout(len(p.Spec.GatewayAddresses)),
			func(ctx context.Context, id string) (err error) {
				root, err = s.rootShown(ctx, p, td, id)
				return err
			})
		if err == nil {
			return s.adoptFetched(ctx, p.Name, root)
		}
	}
	return fmt.Errorf("fetch the root of spec.bundle.fingerprint: %w", err)
}

// rootShown returns the pinned root from the chain that the peer's gateway presents. It sends no data.
func (s *Service) rootShown(
	ctx context.Context, p *v1alpha1.MeshPeer, td spiffe.TrustDomain, id string,
) (*x509.Certificate, error) {
	pinned := func(chain []*x509.Certificate) (*x509.Certificate, error) {
		return verifyPinned(chain, p.Spec.Bundle.Fingerprint, td, s.Now(), p.Spec.GatewayIDs...)
	}
	a, err := s.dialThrough(ctx, BootstrapSNI(id), func(ctx context.Context, raw net.Conn) (net.Conn, error) {
		conn, err := s.connect(ctx, raw, sni.Control(p.Spec.KnownAs, td.Name()), func(chain []*x509.Certificate) error {
			_, err := pinned(chain)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("greet the peer's gateway: %w", err)
		}
		return conn, nil
	})
	if err != nil {
		return nil, err
	}
	defer a.conn.Close()
	return pinned(a.conn.(*tls.Conn).ConnectionState().PeerCertificates)
}

func (s *Service) adoptFetched(ctx context.Context, name string, root *x509.Certificate) error {
	s.making.Lock()
	defer s.making.Unlock()
	all, err := s.peers(ctx)
	if err != nil {
		return err
	}
	p, ok := all[name]
	if !ok || !fetchable(p.object) || p.object.Spec.Bundle.Fingerprint != spiffe.Fingerprint(root) || p.state.Revoked {
		return fmt.Errorf("peer %s has changed meanwhile", name)
	}
	if err := s.adoptRoots(ctx, all, name, p, []*x509.Certificate{root}); err != nil {
		return err
	}
	s.Log.Info("peer's root fetched by its fingerprint", "peer", name)
	return nil
}
