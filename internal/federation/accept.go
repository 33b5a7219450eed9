package federation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/spiffe"
)

// Peering is the result of making a peering.
type Peering struct {
	Peer             string // the peer's name here
	TrustDomain      string
	KnownAs          string // this mesh's name there
	OwnFingerprint   string
	PeersFingerprint string
}

// Accept makes the mesh that issued the token a peer, under name or, if that is empty, under the name that it proposes.
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
	own, err := s.introductionTo(ctx, name)
	if err != nil {
		return Peering{}, err
	}
	self, err := own.read(s.Now())
	if err != nil {
		return Peering{}, fmt.Errorf("introduce this mesh: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.AcceptTimeout)
	defer cancel()
	in, err := s.request(ctx, t,
		peeringRequest{Secret: t.Secret.Reveal(), Nonce: newID(), Expects: t.Fingerprint, self: own})
	if err != nil {
		return Peering{}, err
	}
	s.making.Lock()
	defer s.making.Unlock()
	if err := s.establish(context.WithoutCancel(ctx), name, in); err != nil {
		return Peering{}, fmt.Errorf("the other mesh has accepted this one as peer %s, but here it failed: %w; "+
			"when that is mended, ask for 'isthmus peer revoke %s' there and a new invitation", t.KnownAs, err,
			t.KnownAs)
	}
	s.Log.Info("peer joined", "peer", name, "trust_domain", in.TrustDomain.Name(), "fingerprint", in.fingerprint())
	return Peering{
		Peer: name, TrustDomain: in.TrustDomain.Name(), KnownAs: in.KnownAs,
		OwnFingerprint: self.fingerprint(), PeersFingerprint: in.fingerprint(),
	}, nil
}

// mayAccept performs the checks that need no contact with the other mesh.
func (s *Service) mayAccept(ctx context.Context, t Token, name string) error {
	if now := s.Now(); !now.Before(t.Expires) {
		return fmt.Errorf("the invitation expired at %s (it is %s here): ask for a new one, and check the clocks of both sides",
			t.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if t.TrustDomain == s.TrustDomain {
		return fmt.Errorf("the invitation is from this mesh's own trust domain %s: accept it at the other mesh",
			s.TrustDomain.Name())
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
	return s.reachable()
}

// request asks the inviter's addresses in turn until one gives a final answer or the time is up.
func (s *Service) request(ctx context.Context, t Token, req peeringRequest) (introduction, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return introduction{}, fmt.Errorf("write request: %w", err)
	}
	for {
		for _, addr := range s.sortByFamily(t.Addresses) {
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
			return introduction{},
				fmt.Errorf("no answer from the inviting mesh within %s: check that %s is reachable from this mesh's gateway "+
					"and that the invitation is still open: %w", s.AcceptTimeout, t.Addresses[0], err)
		case <-time.After(retryEvery):
		}
	}
}

// sortByFamily moves addresses to the front whose IP version this mesh's gateways have outside.
func (s *Service) sortByFamily(addrs []netip.AddrPort) []netip.AddrPort {
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

// requestAt asks one address with a time limit, since another one may work better.
func (s *Service) requestAt(
	ctx context.Context, t Token, addr netip.AddrPort, body []byte,
) (in introduction, err error) {
	err = s.bootstrap(ctx, addr.String(), s.addressTimeout(len(t.Addresses)),
		func(ctx context.Context, id string) (err error) {
			in, err = s.askOnce(ctx, t, id, body)
			return err
		})
	return in, err
}

// askOnce makes one attempt. A gateway named in the token must answer and lead to the inviter's control plane. Only the
// control plane is sent the secret.
func (s *Service) askOnce(ctx context.Context, t Token, id string, body []byte) (introduction, error) {
	name := sni.Invite(t.InviteID, t.TrustDomain.Name())
	a, err := s.dialThrough(ctx, BootstrapSNI(id), func(ctx context.Context, raw net.Conn) (net.Conn, error) {
		gateway, err := s.connectPinned(ctx, raw, name, t.Root, t.TrustDomain, t.GatewayIDs...)
		if err != nil {
			return nil, fmt.Errorf("greet the inviting mesh's gateway: %w", err)
		}
		conn, err := s.connectPinned(ctx, gateway, name, t.Root, t.TrustDomain, spiffe.Control(t.TrustDomain).String())
		if err != nil {
			return nil, fmt.Errorf("greet the inviting mesh's control plane: %w", err)
		}
		return conn, nil
	})
	if err != nil {
		return introduction{}, err
	}
	got, err := ask(ctx, a.conn,
		exchange{method: http.MethodPost, host: name, path: PathPeering, body: body, limit: MaxPeeringBytes})
	if err != nil {
		return introduction{}, err
	}
	in, err := s.checkAnswer(t, got.body)
	if err != nil {
		return introduction{},
			finalError{fmt.Errorf("the other mesh's answer cannot be used: %w: ask for 'isthmus peer revoke %s' there",
				err, t.KnownAs)}
	}
	return in, nil
}

// checkAnswer parses the inviter's introduction and checks it against the token.
func (s *Service) checkAnswer(t Token, raw []byte) (introduction, error) {
	var answer self
	if err := strictJSON(raw, &answer); err != nil {
		return introduction{}, errors.New("it is not what it should be: run the same version of isthmus on both sides")
	}
	in, err := answer.read(s.Now())
	switch {
	case err != nil:
		return introduction{}, err
	case in.TrustDomain != t.TrustDomain:
		return introduction{}, fmt.Errorf("it is of trust domain %s, not %s",
			in.TrustDomain.Name(), t.TrustDomain.Name())
	case in.KnownAs != t.KnownAs:
		return introduction{}, fmt.Errorf("it knows this mesh as %s, not %s", in.KnownAs, t.KnownAs)
	case in.fingerprint() != t.Fingerprint:
		return introduction{}, fmt.Errorf("its roots, gateway identities %s or addresses %s are not those of the "+
			"token (fingerprint %s instead of %s)",
			in.GatewayIDs, texts(in.Addresses), in.fingerprint(), t.Fingerprint)
	}
	return in, nil
}
