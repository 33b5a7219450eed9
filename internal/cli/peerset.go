package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) peerSetCmd() *cobra.Command {
	var req adminapi.PeerTermsRequest
	var age, expires string
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change how long a peering holds",
		Long: `Change how long a peering that was made by invitation holds: how old the peer's roots may grow
without a refresh, and when the peering ends. It lasts until the peering ends; peering anew
begins with the defaults. A peer that a file describes is changed there.`,
		Example: `  isthmus peer set bank --max-bundle-age 12h
  isthmus peer set bank --expires-at 2027-03-31T00:00:00Z`,
		Args: oneArg("the peer's name"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			req.Peer = args[0]
			if req.MaxBundleAge, err = days(age); err != nil {
				return usage(cmd, "--max-bundle-age: %s", err)
			}
			if expires != "" {
				if req.ExpiresAt, err = time.Parse(time.RFC3339, expires); err != nil {
					return usage(cmd, "--expires-at: %q is not a time such as 2027-03-31T00:00:00Z", expires)
				}
			}
			switch {
			case req.Never && expires != "":
				return usage(cmd, "--never and --expires-at exclude each other")
			case age == "" && expires == "" && !req.Never:
				return usage(cmd, "say what to change: --max-bundle-age, --expires-at or --never")
			}
			resp, err := ask[adminapi.PeerTermsRequest, adminapi.PeerTermsResponse](cmd.Context(), a, "PeerTerms", &req)
			if err != nil {
				return err
			}
			return a.print(resp, func(w when) string { return termsText(*resp) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&age, "max-bundle-age", "", "how old the peer's roots may grow, for example 12h or 7d")
	f.StringVar(&expires, "expires-at", "", "when the peering ends, for example 2027-03-31T00:00:00Z")
	f.BoolVar(&req.Never, "never", false, "the peering does not end by itself")
	cmd.ValidArgsFunction = a.completion(a.peerNames)
	return a.client(cmd)
}

func termsText(r adminapi.PeerTermsResponse) string {
	end := "does not end by itself"
	if !r.ExpiresAt.IsZero() {
		end = "ends at " + r.ExpiresAt.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("Peer %s: everything is refused once its roots are older than %s; the peering %s.\n",
		clean(r.Peer, oneLine), short(r.MaxBundleAge), end)
}
