package federation

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/spiffe"
)

// Peering is a peering just made.
type Peering struct {
	Peer             string // name here
	TrustDomain      string
	KnownAs          string // our name there
	OwnFingerprint   string
	PeersFingerprint string
}

// Accept makes a peer of the mesh that wrote the token, under name, or under the name that it proposes.
func (s *Service) Accept(ctx context.Context, token, name string) (Peering, error) {
	t, err := ParseToken(token)
	if err != nil {
		return Peering{}, err
	}
	if name == "" {
		name = t.Name
	}
	if err := s.mayAccept(ctx, t, name); err != nil {
		return Peering{}, err
	}
	own, err := s.introduce(ctx, name)
	if err != nil {
		return Peering{}, err
	}
	fingerprint, err := s.ownFingerprint()
	if err != nil {
		return Peering{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.AcceptTimeout)
	defer cancel()
	in, err := s.request(ctx, t, peeringRequest{Secret: t.Secret.Reveal(), Nonce: newID(), self: own})
	if err != nil {
		return Peering{}, err
	}
	s.making.Lock()
	defer s.making.Unlock()
	if err := s.establish(context.WithoutCancel(ctx), name, in); err != nil {
		return Peering{}, fmt.Errorf("the other mesh has accepted this one as peer %s, but here it failed: %w; "+
			"when that is mended, ask for 'isthmus peer revoke %s' there and a new invitation", t.KnownAs, err, t.KnownAs)
	}
	s.Log.Info("peer joined", "peer", name, "trust_domain", in.TrustDomain.Name(), "fingerprints", in.fingerprints())
	return Peering{
		Peer: name, TrustDomain: in.TrustDomain.Name(), KnownAs: in.KnownAs, OwnFingerprint: fingerprint, PeersFingerprint: t.Fingerprint,
	}, nil
}

// mayAccept refuses what needs no question to the other mesh.
func (s *Service) mayAccept(ctx context.Context, t Token, name string) error {
	if now := s.Now(); !now.Before(t.Expires) {
		return fmt.Errorf("the invitation expired at %s (it is %s here): ask for a new one, and check the clocks of both sides",
			t.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if t.TrustDomain == s.TrustDomain {
		return fmt.Errorf("the invitation is from this mesh's own trust domain %s: accept it at the other mesh", s.TrustDomain.Name())
	}
	all, err := s.peers(ctx)
	if err != nil {
		return err
	}
	if err := checkName(all, name); err != nil {
		return err
	}
	if err := s.checkNewcomer(all, name, introduction{TrustDomain: t.TrustDomain, Addresses: t.Addresses}); err != nil {
		return err
	}
	_, _, err = s.gateways()
	return err
}

// request asks at each of the inviter's addresses in turn until one answers for good or the time is over.
func (s *Service) request(ctx context.Context, t Token, req peeringRequest) (introduction, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return introduction{}, fmt.Errorf("write request: %w", err)
	}
	for {
		for _, addr := range s.likelyFirst(t.Addresses) {
			in, last := s.requestAt(ctx, t, addr, body)
			switch {
			case last == nil:
				return in, nil
			case isFinal(last):
				return introduction{}, last
			}
			err = last
		}
		select {
		case <-ctx.Done():
			return introduction{}, fmt.Errorf("no answer from the inviting mesh within %s: check that %s is reachable from this mesh's gateway "+
				"and that the invitation is still open: %w", s.AcceptTimeout, t.Addresses[0], err)
		case <-time.After(retryEvery):
		}
	}
}

// likelyFirst puts addresses of an IP version that this mesh's own gateways have outside before the others.
func (s *Service) likelyFirst(addrs []netip.AddrPort) []netip.AddrPort {
	own, _, err := s.gateways()
	if err != nil {
		return addrs
	}
	foreign := func(a netip.AddrPort) int {
		if slices.ContainsFunc(own, func(o netip.AddrPort) bool { return o.Addr().BitLen() == a.Addr().BitLen() }) {
			return 0
		}
		return 1
	}
	out := slices.Clone(addrs)
	slices.SortStableFunc(out, func(a, b netip.AddrPort) int { return foreign(a) - foreign(b) })
	return out
}

// requestAt asks at one address, for as long as half of the time allows: another may be better.
func (s *Service) requestAt(ctx context.Context, t Token, addr netip.AddrPort, body []byte) (in introduction, err error) {
	err = s.bootstrap(ctx, addr.String(), func(ctx context.Context, id string) (err error) {
		in, err = s.askOnce(ctx, t, id, body)
		return err
	})
	return in, err
}

// askOnce makes one attempt. The secret leaves only after the other side has proved to be under the pinned root.
func (s *Service) askOnce(ctx context.Context, t Token, id string, body []byte) (introduction, error) {
	raw, err := s.DialGateway(ctx, BootstrapSNI(id))
	if err != nil {
		return introduction{}, fmt.Errorf("reach own gateway: %w", err)
	}
	var gateway spiffe.ID
	conn := tls.Client(raw, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: sni.Invite(t.InviteID, t.TrustDomain.Name()),
		InsecureSkipVerify: true, // the names are SPIFFE IDs, the root is known by fingerprint: VerifyConnection checks both
		VerifyConnection: func(cs tls.ConnectionState) (err error) {
			gateway, err = verifyPinned(cs.PeerCertificates, t.Fingerprint, t.TrustDomain, s.Now())
			return err
		},
	})
	if err := handshake(ctx, conn, raw); err != nil {
		return introduction{}, fmt.Errorf("greet the inviting mesh's gateway: %w", err)
	}
	got, err := ask(ctx, conn, exchange{
		method: http.MethodPost, host: sni.Invite(t.InviteID, t.TrustDomain.Name()), path: PathPeering, body: body, limit: MaxPeeringBytes,
	})
	if err != nil {
		return introduction{}, err
	}
	in, err := s.checkAnswer(t, got, gateway)
	if err != nil {
		return introduction{}, finalError{fmt.Errorf("the other mesh's answer cannot be used: %w: ask for 'isthmus peer revoke %s' there", err, t.KnownAs)}
	}
	return in, nil
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

// checkAnswer reads what the inviter says of itself and holds it against the token and the handshake.
func (s *Service) checkAnswer(t Token, raw []byte, gateway spiffe.ID) (introduction, error) {
	var answer self
	if err := strictJSON(raw, &answer); err != nil {
		return introduction{}, errors.New("it is not what it should be: run the same version of isthmus on both sides")
	}
	in, err := answer.read(s.Now())
	switch {
	case err != nil:
		return introduction{}, err
	case in.TrustDomain != t.TrustDomain:
		return introduction{}, fmt.Errorf("it is of trust domain %s, not %s", in.TrustDomain.Name(), t.TrustDomain.Name())
	case in.KnownAs != t.KnownAs:
		return introduction{}, fmt.Errorf("it knows this mesh as %s, not %s", in.KnownAs, t.KnownAs)
	case !in.Bundle.has(t.Fingerprint):
		return introduction{}, errors.New("its bundle lacks the root of the token's fingerprint")
	case !slices.Contains(in.GatewayIDs, gateway.String()):
		return introduction{}, fmt.Errorf("%s answered, which it does not name as a gateway", gateway)
	}
	return in, nil
}

// verifyPinned checks a chain that must hold the root of a fingerprint and begin with a leaf of that trust domain under it.
func verifyPinned(chain []*x509.Certificate, fingerprint string, td spiffe.TrustDomain, now time.Time) (spiffe.ID, error) {
	i := slices.IndexFunc(chain, func(c *x509.Certificate) bool { return peerrules.Fingerprint(c) == fingerprint })
	if i <= 0 {
		return spiffe.ID{}, finalError{fmt.Errorf("the gateway that answered does not hold the root of fingerprint %s, which the token pins: "+
			"something between the meshes answers in the inviter's place, or its root has changed since; compare fingerprints with its administrators", fingerprint)}
	}
	root := chain[i]
	if err := peerrules.CheckRoot(root); err != nil {
		return spiffe.ID{}, finalError{fmt.Errorf("the pinned root cannot be used: %w", err)}
	}
	id, _, err := x509svid.Verify(chain, x509bundle.FromX509Authorities(td, []*x509.Certificate{root}), x509svid.WithTime(now))
	if err != nil {
		return spiffe.ID{}, finalError{fmt.Errorf("the gateway that answered has no valid certificate of trust domain %s under the pinned root: %w", td.Name(), err)}
	}
	return id, nil
}
