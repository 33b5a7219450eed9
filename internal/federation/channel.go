package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/spiffe"
)

// Control planes use TLS with each other end to end. Gateways carry it inside their own TLS connections and can neither
// read nor modify it.

// protocol is the ALPN protocol inside the control planes' TLS.
const protocol = "http/1.1"

// verifier checks the chain that the other side presents, leaf first.
type verifier func(chain []*x509.Certificate) error

// connect performs the TLS handshake of this control plane on a connection through gateways. It closes the connection
// on failure.
func (s *Service) connect(ctx context.Context, raw net.Conn, name string, verify verifier) (*tls.Conn, error) {
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: name, NextProtos: []string{protocol}, Time: s.Now,
		InsecureSkipVerify:   true, // verify checks the SPIFFE ID and the peer's roots instead
		VerifyConnection:     func(c tls.ConnectionState) error { return verify(c.PeerCertificates) },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return s.Identity() },
	})
	return conn, handshake(ctx, conn, raw)
}

// connectPinned is connect for a peer known by its identity and the fingerprint of its root.
func (s *Service) connectPinned(
	ctx context.Context, raw net.Conn, name, root string, td spiffe.TrustDomain, ids ...string,
) (*tls.Conn, error) {
	return s.connect(ctx, raw, name, func(chain []*x509.Certificate) error {
		_, err := verifyPinned(chain, root, td, s.Now(), ids...)
		return err
	})
}

// reachPeer connects to a peer's control plane.
func (s *Service) reachPeer(ctx context.Context, p *v1alpha1.MeshPeer) (*attempt, error) {
	v := peerrules.All(s.snapshotNow(), s.TrustDomain.Name())[p.Name]
	if !v.Control {
		return nil, fmt.Errorf("nothing passes now: %s", v.Message)
	}
	name := sni.Control(p.Spec.KnownAs, p.Spec.TrustDomain)
	return s.dialThrough(ctx, ControlSNI(p.Name), func(ctx context.Context, raw net.Conn) (net.Conn, error) {
		conn, err := s.connect(ctx, raw, name, func(chain []*x509.Certificate) error {
			return verifyControl(chain, p.Spec.TrustDomain, v.Roots, s.Now())
		})
		if err != nil {
			return nil, fmt.Errorf("greet the peer's control plane: %w", err)
		}
		return conn, nil
	})
}

// serverTLS returns the TLS configuration for control planes of peers and invited meshes. The handlers identify the
// caller on each request, since its status can change.
func (s *Service) serverTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, NextProtos: []string{protocol}, Time: s.Now,
		ClientAuth:     tls.RequireAnyClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.Identity() },
	}
}

// peerOf returns the peer whose control plane is the other end of a connection.
func (s *Service) peerOf(c *tls.ConnectionState) (string, error) {
	if c == nil {
		return "", errors.New("the connection is not encrypted")
	}
	name, ok := sni.ControlOf(c.ServerName, s.TrustDomain.Name())
	if !ok {
		return "", errors.New("it asks for no name of a peer's")
	}
	v, p := peerrules.All(s.snapshotNow(), s.TrustDomain.Name())[name], s.meshPeer(name)
	switch {
	case p == nil:
		return "", errors.New("there is no such peer")
	case !v.Control:
		return "", fmt.Errorf("nothing passes now: %s", v.Message)
	}
	return name, verifyControl(c.PeerCertificates, p.Spec.TrustDomain, v.Roots, s.Now())
}

// verifyControl checks that a chain belongs to a mesh's control plane and leads to its roots (PEM).
func verifyControl(chain []*x509.Certificate, trustDomain string, roots []byte, now time.Time) error {
	td, err := spiffe.ParseTrustDomain(trustDomain)
	if err != nil {
		return err
	}
	certs, err := peerrules.ParseRoots(roots)
	if err != nil {
		return err
	}
	return verifyID(chain, td, certs, now, spiffe.Control(td).String())
}

// verifyID checks that a chain leads to one of these roots and has one of these identities, in its trust domain.
func verifyID(
	chain []*x509.Certificate, td spiffe.TrustDomain, roots []*x509.Certificate, now time.Time, ids ...string,
) error {
	id, _, err := x509svid.Verify(chain, x509bundle.FromX509Authorities(td, roots), x509svid.WithTime(now))
	switch {
	case err != nil:
		return fmt.Errorf("no valid certificate of trust domain %s: %w", td.Name(), err)
	case !slices.Contains(ids, id.String()):
		return errOther{id}
	}
	return nil
}

// errOther means a valid certificate of the right mesh with an unexpected identity.
type errOther struct{ id spiffe.ID }

func (e errOther) Error() string { return fmt.Sprintf("it is %s, who has no say here", e.id) }

// verifyPinned checks a chain that contains the root with a given fingerprint and starts with a leaf of one of these
// identities. It returns the root.
func verifyPinned(
	chain []*x509.Certificate, fingerprint string, td spiffe.TrustDomain, now time.Time, ids ...string,
) (*x509.Certificate, error) {
	i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return spiffe.Fingerprint(c) == fingerprint })
	if i <= 0 {
		return nil,
			finalError{fmt.Errorf("who answered does not hold the root of fingerprint %s, which the token pins: "+
				"something between the meshes answers in the inviter's place, or its root has changed since; "+
				"compare fingerprints with its administrators", fingerprint)}
	}
	root := chain[i]
	if err := peerrules.CheckRoot(root); err != nil {
		return nil, finalError{fmt.Errorf("the pinned root cannot be used: %w", err)}
	}
	err := verifyID(chain, td, []*x509.Certificate{root}, now, ids...)
	var other errOther
	switch {
	case errors.As(err, &other):
		return nil, finalError{fmt.Errorf("%s answered, where only %s may: something between the meshes answers "+
			"in the inviter's place "+
			"with a certificate of the inviter's mesh; tell its administrators whose it is", other.id, ids)}
	case err != nil:
		return nil, finalError{fmt.Errorf("who answered has no valid certificate under the pinned root: %w", err)}
	}
	return root, nil
}

func handshake(ctx context.Context, conn *tls.Conn, raw net.Conn) error {
	if err := conn.HandshakeContext(ctx); err != nil {
		return errors.Join(err, ignoreClosed(raw.Close()))
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
