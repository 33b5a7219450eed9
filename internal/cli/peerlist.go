package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) peerListCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Example: "  isthmus peer list",
		Short:   "All peers, one line each",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := ask[adminapi.PeerRequest, adminapi.PeerListResponse](cmd.Context(), a, "PeerList",
				&adminapi.PeerRequest{})
			if err != nil {
				return err
			}
			return a.print(resp, func(w when) string { return peersText(resp.Peers, w) })
		},
	}
	return a.client(cmd)
}

func (a *app) peerStatusCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status [NAME]",
		Example: "  isthmus peer status\n  isthmus peer status bank",
		Short:   "Everything known about a peer, or about each",
		Args:    optionalArg("a peer's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := ask[adminapi.PeerRequest, adminapi.PeerListResponse](cmd.Context(), a, "PeerList",
				peerArg(args))
			if err != nil {
				return err
			}
			if len(args) == 1 && len(resp.Peers) == 0 {
				return badInput("isthmus peer list", "there is no peer %q", args[0])
			}
			return a.print(resp, func(w when) string { return peerStatusText(resp.Peers, w) })
		},
	}
	cmd.ValidArgsFunction = a.completion(a.peerNames)
	return a.client(cmd)
}

const noPeers = "No peer. To begin: isthmus peer invite NAME here, isthmus peer accept there.\n"

func peersText(peers []adminapi.PeerStatus, w when) string {
	if len(peers) == 0 {
		return noPeers
	}
	t := newTable("PEER", "TRUST DOMAIN", "STATE", "BUNDLE", "CATALOGUE", "OFFERED", "EXPORTS", "IMPORTS", "REQUESTS",
		"DENIED", "FAILED HANDSHAKES")
	for _, p := range peers {
		t.row(p.Name, p.TrustDomain, peerState(p.Conditions), w.past(p.BundleTime), w.past(p.CatalogueTime),
			fmt.Sprint(p.Offered), fmt.Sprint(p.Exports), fmt.Sprint(p.Imports),
			fmt.Sprint(p.Counts.Requests), fmt.Sprint(p.Counts.Denials), fmt.Sprint(p.Counts.HandshakesFailed))
	}
	return t.String()
}

// peerState summarises a peer in one word: the first problem, or "ready".
func peerState(conditions []adminapi.Condition) string {
	status, reason := map[string]string{}, map[string]string{}
	for _, c := range conditions {
		status[c.Type], reason[c.Type] = c.Status, c.Reason
	}
	for _, bad := range []string{"Revoked", "Suspended"} {
		if status[bad] == "True" {
			return strings.ToLower(bad)
		}
	}
	for _, need := range []struct{ condition, otherwise string }{
		{"TrustEstablished", "no trust"},
		{"BundleFresh", "stale bundle"},
		{"DataPathReady", "no data path"},
		{"CatalogueSynced", "no catalogue"},
	} {
		if status[need.condition] == "True" {
			continue
		}
		if reason[need.condition] == "Connecting" {
			return "connecting"
		}
		return need.otherwise
	}
	if status["Expiring"] == "True" {
		return "expiring"
	}
	return "ready"
}

func peerStatusText(peers []adminapi.PeerStatus, w when) string {
	if len(peers) == 0 {
		return noPeers
	}
	var parts []string
	for _, p := range peers {
		parts = append(parts, onePeer(p, w))
	}
	return strings.Join(parts, "\n")
}

func onePeer(p adminapi.PeerStatus, w when) string {
	c := p.Counts
	lines := [][2]string{
		{"trust domain", p.TrustDomain},
		{"gateways", strings.Join(p.Addresses, " ")},
		{"knows this mesh as", p.KnownAs},
		{"from", p.Source},
	}
	lines = append(lines, [2]string{"this mesh", groupFingerprint(p.OwnFingerprint)},
		[2]string{"the peer", groupFingerprint(p.PeersFingerprint)})
	for _, f := range p.OwnRoots {
		lines = append(lines, [2]string{"this mesh's root", groupFingerprint(f)})
	}
	for _, f := range p.Roots {
		lines = append(lines, [2]string{"the peer's root", groupFingerprint(f)})
	}
	lines = append(lines,
		[2]string{"root ends", w.future(p.RootNotAfter)},
		[2]string{"bundle", fmt.Sprintf("sequence %d, confirmed %s, refused when older than %s", p.BundleSequence,
			w.past(p.BundleTime), short(p.MaxBundleAge))},
		[2]string{"catalogue", fmt.Sprintf("sequence %d, received %s, %s offered", p.CatalogueSequence,
			w.past(p.CatalogueTime), plural(p.Offered, "service"))},
		[2]string{"exports, imports", fmt.Sprintf("%d, %d", p.Exports, p.Imports)},
		[2]string{"handshakes", fmt.Sprintf("%d done, %d failed", c.HandshakesOK, c.HandshakesFailed)},
		[2]string{"requests", fmt.Sprintf("%d, %d denied, %d bytes in, %d bytes out", c.Requests, c.Denials, c.BytesIn,
			c.BytesOut)},
	)
	t := newTable("CONDITION", "STATUS", "SINCE", "REASON", "MESSAGE")
	for _, c := range p.Conditions {
		t.row(c.Type, c.Status, w.past(c.Since), c.Reason, c.Message)
	}
	return fmt.Sprintf("%s: %s\n%s\n%s", clean(p.Name, oneLine), peerState(p.Conditions), facts(lines...), t)
}
