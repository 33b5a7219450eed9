package demo

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/wellknown"
)

// nothingReachable tries every path from retail into cards before the peering.
func nothingReachable(ctx context.Context, w *world) (string, error) {
	http, err := w.get("storefront", "GET", headersURL, nil)
	if err != nil {
		return "", err
	}
	tcp, err := w.connect("storefront", "tokens.default:7000")
	if err != nil {
		return "", err
	}
	conn, err := dial(ctx, w.plan.gatewayNetns(w.retail()), hostPort(w.cards().outer, wellknown.FederationPort))
	door := "no listener"
	if err == nil {
		door = hearTLS(conn, federationSNI("payments", w))
	} else {
		door = cause(err)
	}
	seen := fmt.Sprintf("payments: %s; tokens: %s; gateway: %s", outcome(http), bytesOf(tcp), door)
	switch {
	case http.Headers["served-by"] != "" || http.Status == 200:
		return "", errors.New("payments answered: " + seen)
	case tcp.Body != "":
		return "", errors.New("tokens said something: " + seen)
	case strings.HasPrefix(door, accepted):
		return "", errors.New("the gateway let a stranger in: " + seen)
	}
	return seen, nil
}

// peer makes an invitation in cards and accepts it in retail.
func peer(ctx context.Context, w *world) (string, error) {
	cards, retail := w.admin(w.cards()), w.admin(w.retail())
	invite, err := call[adminapi.PeerInviteRequest, adminapi.PeerInviteResponse](ctx, cards, "PeerInvite",
		&adminapi.PeerInviteRequest{Peer: "retail", TTL: 5 * time.Minute})
	if err != nil {
		return "", err
	}
	accept, err := call[adminapi.PeerAcceptRequest, adminapi.PeerAcceptResponse](ctx, retail, "PeerAccept",
		&adminapi.PeerAcceptRequest{Token: invite.Token, Name: "cards"})
	if err != nil {
		return "", err
	}
	inviter, err := established(ctx, cards, "retail")
	if err != nil {
		return "", err
	}
	acceptor, err := established(ctx, retail, "cards")
	if err != nil {
		return "", err
	}
	if accept.PeersFingerprint != invite.Fingerprint || inviter.PeersFingerprint != accept.OwnFingerprint ||
		acceptor.PeersFingerprint != inviter.OwnFingerprint || acceptor.OwnFingerprint != inviter.PeersFingerprint {
		return "", fmt.Errorf("the sides disagree: cards says %s and saw %s, retail says %s and saw %s",
			short(invite.Fingerprint), short(inviter.PeersFingerprint), short(accept.OwnFingerprint),
			short(accept.PeersFingerprint))
	}
	return fmt.Sprintf("cards %s, retail %s", short(invite.Fingerprint), short(accept.OwnFingerprint)), nil
}

// established waits until a mesh reports that it trusts its peer.
func established(ctx context.Context, a admin, peer string) (p adminapi.PeerStatus, err error) {
	err = retry.Until(ctx, 10*time.Second, 50*time.Millisecond, func(ctx context.Context) error {
		if p, err = a.peer(ctx, peer); err != nil {
			return err
		}
		for _, c := range p.Conditions {
			if c.Type == "TrustEstablished" && c.Status == "True" {
				return nil
			}
			if c.Type == "TrustEstablished" {
				return fmt.Errorf("%s does not trust %s yet: %s", a.mesh, peer, c.Message)
			}
		}
		return fmt.Errorf("%s says nothing of its trust in %s", a.mesh, peer)
	})
	return p, err
}

// exportAndImport adds a file to each mesh and waits until both control planes report that the path works.
func exportAndImport(ctx context.Context, w *world) (string, error) {
	if err := w.apply(w.cards(), "export-payments.yaml", "export-payments.yaml"); err != nil {
		return "", err
	}
	var entry adminapi.CatalogueEntry
	err := retry.Until(ctx, 15*time.Second, 50*time.Millisecond, func(ctx context.Context) error {
		c, err := call[adminapi.PeerRequest, adminapi.CatalogueResponse](ctx, w.admin(w.retail()), "Catalogue",
			&adminapi.PeerRequest{Peer: "cards"})
		if err != nil {
			return err
		}
		if len(c.Entries) != 1 || c.Entries[0].Name != "payments" {
			return fmt.Errorf("the catalogue at retail holds %d entries, not payments alone", len(c.Entries))
		}
		entry = c.Entries[0]
		return nil
	})
	if err != nil {
		return "", err
	}
	if err := w.apply(w.retail(), "import-payments.yaml", "import-payments.yaml"); err != nil {
		return "", err
	}
	if err := w.servedBy(ctx, "payments@cards", 15*time.Second); err != nil {
		return "", err
	}
	return fmt.Sprintf("catalogue: %s/%s port %d %s", entry.Namespace, entry.Name, entry.Port, entry.Protocol), nil
}

func short(fingerprint string) string { return fingerprint[:min(16, len(fingerprint))] }
