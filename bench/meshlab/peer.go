package meshlab

import (
	"context"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/retry"
)

// Peer makes a invite b, and waits until both trust each other under their names.
func Peer(ctx context.Context, a, b *Running) error {
	invite, err := Call[adminapi.PeerInviteRequest, adminapi.PeerInviteResponse](ctx, a, "PeerInvite",
		&adminapi.PeerInviteRequest{Peer: b.Mesh.Name, TTL: 5 * time.Minute})
	if err != nil {
		return fmt.Errorf("invite %s: %w", b.Mesh.Name, err)
	}
	_, err = Call[adminapi.PeerAcceptRequest, adminapi.PeerAcceptResponse](ctx, b, "PeerAccept",
		&adminapi.PeerAcceptRequest{Token: invite.Token, Name: a.Mesh.Name})
	if err != nil {
		return fmt.Errorf("accept the invitation of %s: %w", a.Mesh.Name, err)
	}
	if err := retry.Until(ctx, 20*time.Second, 50*time.Millisecond,
		func(ctx context.Context) error { return trusts(ctx, a, b.Mesh.Name) }); err != nil {
		return err
	}
	return retry.Until(ctx, 20*time.Second, 50*time.Millisecond,
		func(ctx context.Context) error { return trusts(ctx, b, a.Mesh.Name) })
}

func trusts(ctx context.Context, r *Running, peer string) error {
	resp, err := Call[adminapi.PeerRequest, adminapi.PeerListResponse](ctx, r, "PeerList",
		&adminapi.PeerRequest{Peer: peer})
	if err != nil {
		return err
	}
	for _, p := range resp.Peers {
		for _, c := range p.Conditions {
			if p.Name == peer && c.Type == "TrustEstablished" && c.Status == "True" {
				return nil
			}
		}
	}
	return fmt.Errorf("%s does not trust %s yet", r.Mesh.Name, peer)
}
