package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) peerCmd() *cobra.Command {
	return family("peer", "Other meshes that this one agrees to meet at the gateways",
		a.peerInviteCmd(), a.peerAcceptCmd(), a.peerListCmd(), a.peerStatusCmd(), a.peerProbeCmd(),
		a.peerSetCmd(), a.peerSuspendCmd(), a.peerResumeCmd(), a.peerRevokeCmd(), a.peerManifestCmd())
}

func (a *app) peerInviteCmd() *cobra.Command {
	var req adminapi.PeerInviteRequest
	var out string
	cmd := &cobra.Command{
		Use:   "invite NAME",
		Short: "Consent to a peering: make a one-time token for one named peer",
		Long: `Consent to a peering: make a one-time token for one named peer, for at most 15 minutes. The other mesh's
administrator consents by accepting it. NAME is what this mesh calls the peer.`,
		Example: `  isthmus peer invite retail --out invitation`,
		Args:    oneArg("the peer's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Peer = args[0]
			if req.TTL <= 0 || req.TTL > 15*time.Minute {
				return usage(cmd, "--ttl: %s is not between 1s and 15m", req.TTL)
			}
			if err := checkOut(out); err != nil {
				return err
			}
			resp, err := ask[adminapi.PeerInviteRequest, adminapi.PeerInviteResponse](cmd.Context(), a, "PeerInvite",
				&req)
			if err != nil {
				return err
			}
			if out != "" {
				if err := writeSecret(out, resp.Token+"\n"); err != nil {
					return err
				}
			}
			fmt.Fprint(a.Err, inviteText(req.Peer, out, *resp, when{now: a.Now()}))
			if out != "" {
				return nil
			}
			return a.print(resp, func(when) string { return resp.Token + "\n" })
		},
	}
	cmd.Flags().DurationVar(&req.TTL, "ttl", 15*time.Minute, "how long the token may wait to be accepted, at most 15m")
	cmd.Flags().StringVar(&out, "out", "", "write the token to this new file, mode 0600, instead of printing it")
	return a.client(cmd)
}

func inviteText(peer, out string, r adminapi.PeerInviteResponse, w when) string {
	where := "the token that follows (it is shown only now)"
	if out != "" {
		where = "the token in " + out + " (mode 0600)"
	}
	return fmt.Sprintf("Invitation for %q, usable once, ends %s.\n\n%s\n", peer, w.future(r.Expires), facts(
		[2]string{"this mesh", r.TrustDomain},
		[2]string{"gateways", strings.Join(r.Addresses, " ")},
		[2]string{"fingerprint", groupFingerprint(r.Fingerprint)},
	)) + fmt.Sprintf(`Hand %s to the administrator of %q
over a channel that you trust. There: isthmus peer accept --token-file FILE
Afterwards compare both fingerprints with them, aloud: isthmus peer status %s

`, where, peer, peer)
}

func (a *app) peerAcceptCmd() *cobra.Command {
	var req adminapi.PeerAcceptRequest
	var file string
	cmd := &cobra.Command{
		Use:   "accept [-]",
		Short: "Consent to a peering: accept another mesh's invitation",
		Long: `Consent to a peering: accept another mesh's invitation. The token comes from a file or from standard input, never from
the command line, where every user of the machine could read it.`,
		Example: `  isthmus peer accept --token-file invitation
  isthmus peer accept < invitation`,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 1, len(args) == 1 && args[0] != "-":
				return usage(cmd,
					"a token on the command line can be read by every user of this machine: give --token-file FILE, or - for standard input (and ask for a new invitation if that was the token)")
			case len(args) == 1 && file != "":
				return usage(cmd, "give either --token-file or -, not both")
			case len(args) == 0 && file == "" && a.Terminal:
				return usage(cmd, "the token is missing: give --token-file FILE, or - for standard input")
			case file == "":
				file = "-"
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.Token, err = readSecret(a.In, file); err != nil {
				return err
			}
			resp, err := ask[adminapi.PeerAcceptRequest, adminapi.PeerAcceptResponse](cmd.Context(), a, "PeerAccept",
				&req)
			if err != nil {
				return err
			}
			return a.print(resp, func(when) string { return acceptText(*resp) })
		},
	}
	cmd.Flags().StringVar(&file, "token-file", "", "file with the token, or - for standard input")
	cmd.Flags().StringVar(&req.Name, "name", "", "what this mesh shall call the peer (default: what it proposes)")
	return a.client(cmd)
}

func acceptText(r adminapi.PeerAcceptResponse) string {
	return fmt.Sprintf("Peering with %s made. Here it is called %q; there this mesh is called %q.\n\n%s\n",
		clean(r.TrustDomain, oneLine), clean(r.Peer, oneLine), clean(r.KnownAs, oneLine), facts(
			[2]string{"this mesh", groupFingerprint(r.OwnFingerprint)},
			[2]string{"the peer", groupFingerprint(r.PeersFingerprint)},
		)) + fmt.Sprintf(`Compare both with the peer's administrator, aloud: they see the same two (isthmus peer status).
If they differ: isthmus peer revoke %[1]s
Nothing crosses yet: it takes a FederatedExport there and a FederatedImport here.
  Next: isthmus peer status %[1]s, isthmus catalogue %[1]s
`, clean(r.Peer, oneLine))
}

func (a *app) peerSuspendCmd() *cobra.Command {
	return a.peerActionCmd("suspend NAME", "Refuse every call to and from a peer, until resumed", "PeerSuspend",
		"Suspending %q cuts every connection with it, live ones within seconds.",
		"Suspended %q: every call to and from it is refused, and its live connections are being cut. Roots are still exchanged.\n  Next: isthmus peer resume %[1]s\n")
}

func (a *app) peerResumeCmd() *cobra.Command {
	return a.peerActionCmd("resume NAME", "Let a suspended peer in again", "PeerResume", "",
		"Resumed %q.\n  Next: isthmus peer status %[1]s\n")
}

func (a *app) peerRevokeCmd() *cobra.Command {
	return a.peerActionCmd("revoke NAME", "End a peering: its trust is forgotten, live connections are cut",
		"PeerRevoke",
		"Revoking %q cuts every connection with it and forgets its trust; a new peering needs both administrators.",
		"Revoked %q: its trust is forgotten and its live connections are being cut.\n  Next: isthmus peer list; a new peering begins with isthmus peer invite\n")
}

// peerActionCmd returns a command that performs one action on one peer. If there is a warning, it asks for
// confirmation.
func (a *app) peerActionCmd(use, short, method, warning, done string) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     use,
		Short:   short,
		Example: "  isthmus peer " + strings.Replace(use, "NAME", "bank", 1),
		Args:    oneArg("the peer's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if warning != "" {
				if err := a.confirm(cmd, yes, args[0], fmt.Sprintf(warning, args[0])); err != nil {
					return err
				}
			}
			resp, err := ask[adminapi.PeerRequest, adminapi.Empty](cmd.Context(), a, method,
				&adminapi.PeerRequest{Peer: args[0]})
			if err != nil {
				return err
			}
			return a.print(resp, func(when) string { return fmt.Sprintf(done, args[0]) })
		},
	}
	if warning != "" {
		cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	}
	cmd.ValidArgsFunction = a.completion(a.peerNames)
	return a.client(cmd)
}

func (a *app) peerManifestCmd() *cobra.Command {
	var req adminapi.PeerManifestRequest
	cmd := &cobra.Command{
		Use:   "manifest",
		Short: "The MeshPeer file of this mesh, for peering by files",
		Long: `The MeshPeer file that describes this mesh to a peer, for peering without a connection: each side makes one, both
administrators exchange the files, compare fingerprints aloud and put the other's file into their configuration folder.`,
		Example: "  isthmus peer manifest --as cards --known-as retail > cards.yaml",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.As == "" || req.KnownAs == "" {
				return usage(cmd,
					"--as and --known-as are both needed: what the peer calls this mesh, and what this mesh calls the peer")
			}
			resp, err := ask[adminapi.PeerManifestRequest, adminapi.PeerManifestResponse](cmd.Context(), a,
				"PeerManifest", &req)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Err, "This mesh's fingerprint, to compare aloud: %s\n", groupFingerprint(resp.Fingerprint))
			return a.print(resp, func(when) string { return resp.YAML })
		},
	}
	cmd.Flags().StringVar(&req.As, "as", "", "what the peer calls this mesh (required)")
	cmd.Flags().StringVar(&req.KnownAs, "known-as", "", "what this mesh calls the peer (required)")
	return a.client(cmd)
}
