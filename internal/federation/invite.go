package federation

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// Invitation is an open invitation.
type Invitation struct {
	Token       Token  // Encode returns the secret to hand over
	Fingerprint string // of this mesh
	Expires     time.Time
}

// Invite opens an invitation for a mesh that will have the name peer here. It closes an older invitation for that name.
func (s *Service) Invite(ctx context.Context, peer string, ttl time.Duration) (Invitation, error) {
	if ttl == 0 {
		ttl = MaxInviteTTL
	}
	if ttl < time.Second || ttl > MaxInviteTTL {
		return Invitation{}, fmt.Errorf("an invitation may last between 1s and %s, not %s", MaxInviteTTL, ttl)
	}
	s.making.Lock()
	defer s.making.Unlock()
	all, err := s.peers(ctx)
	if err != nil {
		return Invitation{}, err
	}
	if err := checkName(all, peer); err != nil {
		return Invitation{}, err
	}
	if err := s.reachable(); err != nil {
		return Invitation{}, err
	}
	own, err := s.describeSelf()
	if err != nil {
		return Invitation{}, err
	}
	now := s.Now()
	t := Token{
		TrustDomain: s.TrustDomain, Name: s.Name, KnownAs: peer, Addresses: own.Addresses, GatewayIDs: own.GatewayIDs,
		InviteID: newID(), Secret: newSecret(), Root: spiffe.Fingerprint(own.Bundle.Roots[0]),
		Fingerprint: own.fingerprint(), Expires: now.Add(ttl).UTC(),
	}
	if err := s.Store.CancelInvites(ctx, peer); err != nil {
		return Invitation{}, fmt.Errorf("close older invitations of %s: %w", peer, err)
	}
	kept := state.Invite{ID: t.InviteID, Hash: t.Secret.Hash(), Peer: peer, Created: now, Expires: t.Expires}
	if err := s.Store.AddInvite(ctx, kept); err != nil {
		return Invitation{}, fmt.Errorf("keep invitation of %s: %w", peer, err)
	}
	return Invitation{Token: t, Fingerprint: t.Fingerprint, Expires: t.Expires}, nil
}

func newID() string {
	var b [idBytes]byte
	_, _ = rand.Read(b[:]) // never fails, by its documentation
	return hex.EncodeToString(b[:])
}
