package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/snapshot"
)

func (a *app) tokenCmd() *cobra.Command {
	return family("token", "Join tokens for nodes and gateways", a.tokenCreateCmd())
}

func (a *app) tokenCreateCmd() *cobra.Command {
	req := adminapi.TokenRequest{Role: snapshot.RoleNode}
	var role, out string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a join token: good once, for one named node, for a short time",
		Long: `Make a join token: good once, for one named node, for a short time.

The token says which identities the node may host, and the control plane signs no others for it. It carries the
fingerprint of this mesh's root, so that the node knows the control plane before it trusts anything. It is a secret:
hand it over as you would a password.`,
		Example: `  isthmus token create --node rack1 --identity default/payments --identity default/tokens --out token
  isthmus token create --node edge --role gateway --identity isthmus-system/gateway`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.Role = snapshot.Role(role)
			if err := checkTokenRequest(cmd, req); err != nil {
				return err
			}
			if err := checkOut(out); err != nil {
				return err
			}
			resp, err := ask[adminapi.TokenRequest, adminapi.TokenResponse](cmd.Context(), a, "CreateToken", &req)
			if err != nil {
				return err
			}
			if out != "" {
				if err := writeSecret(out, resp.Token+"\n"); err != nil {
					return err
				}
				fmt.Fprintf(a.Err, "Wrote the token to %s (mode 0600). It is good once, until %s.\n  Next: on %s: isthmus %s --config FILE --token-file %s\n",
					out, stamp(resp.Expires), req.Node, req.Role, out)
				return nil
			}
			fmt.Fprintf(a.Err, "This token lets %s join, once, until %s. It is shown only now; keep it secret.\n  Next: on %s: isthmus %s --config FILE --token-file FILE\n",
				req.Node, stamp(resp.Expires), req.Node, req.Role)
			return a.print(resp, func(when) string { return resp.Token + "\n" })
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Node, "node", "", "name of the node (required)")
	f.StringVar(&role, "role", string(snapshot.RoleNode), "node or gateway")
	f.StringArrayVar(&req.Identities, "identity", nil, "identity the node may host: NAMESPACE/SERVICEACCOUNT, NAMESPACE/* or *; repeat it (required)")
	f.DurationVar(&req.TTL, "ttl", 15*time.Minute, "how long the token may wait to be used")
	f.StringVar(&out, "out", "", "write the token to this new file, mode 0600, instead of printing it")
	return a.client(cmd)
}

func checkTokenRequest(cmd *cobra.Command, r adminapi.TokenRequest) error {
	switch {
	case r.Node == "":
		return usage(cmd, "--node is missing: a token is made for one named node")
	case r.Role != snapshot.RoleNode && r.Role != snapshot.RoleGateway:
		return usage(cmd, "--role: %q is neither node nor gateway", r.Role)
	case len(r.Identities) == 0:
		return usage(cmd, "--identity is missing: without one the node could host nothing; give NAMESPACE/SERVICEACCOUNT, repeated for each")
	case r.TTL <= 0:
		return usage(cmd, "--ttl: %s is not a time to live", r.TTL)
	}
	for _, id := range r.Identities {
		ns, sa, ok := strings.Cut(id, "/")
		if id != "*" && (!ok || ns == "" || sa == "" || strings.Contains(sa, "/") || strings.Contains(ns, "*") || (strings.Contains(sa, "*") && sa != "*")) {
			return usage(cmd, "--identity: %q is none of NAMESPACE/SERVICEACCOUNT, NAMESPACE/* and *", id)
		}
	}
	return nil
}
