package cli

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
)

func (a *app) tokenCmd() *cobra.Command {
	return family("token", "Join tokens for nodes and gateways", a.tokenCreateCmd(), a.tokenListCmd(),
		a.tokenCancelCmd())
}

func (a *app) tokenCreateCmd() *cobra.Command {
	req := adminapi.TokenRequest{Role: snapshot.RoleNode}
	var role, out string
	var workloads, addresses []string
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Create a short-lived one-time join token for one named node",
		Long: `Create a short-lived one-time join token for one named node.

The token says what the node may host; what it reports beyond that is refused. --identity default/payments stands for
workloads named payments, payments-1, payments-v2 and so on, of this service account, with the label app=payments.
--workload says name, account and labels one by one. --address says where their addresses lie: without it, in the
private ranges; a gateway without it keeps those that it first reports.

It carries the fingerprint of this mesh's root, so that the node knows the control plane before it trusts anything.
It is a secret: hand it over as you would a password.`,
		Example: `  isthmus token create --node rack1 --out token \
    --identity default/payments --identity default/tokens \
    --address 10.1.0.0/24
  isthmus token create --node rack2 \
    --workload 'default/web-*,sa=shop,app=web,version=v2'
  isthmus token create --node edge --role gateway \
    --identity isthmus-system/gateway \
    --address 10.1.0.3 --address 198.51.100.11`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req.Role = snapshot.Role(role)
			if err := parseGrant(cmd, &req, workloads, addresses); err != nil {
				return err
			}
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
				fmt.Fprintf(a.Err,
					"Wrote the token to %s (mode 0600). It works once, until %s.\n  Next: on %s: isthmus %s --config FILE --token-file %s\n",
					out, formatTime(resp.Expires), req.Node, req.Role, out)
				return nil
			}
			fmt.Fprintf(a.Err,
				"This token lets %s join, once, until %s. It is shown only now; keep it secret.\n  Next: on %s: isthmus %s --config FILE --token-file FILE\n",
				req.Node, formatTime(resp.Expires), req.Node, req.Role)
			return a.print(resp, func(when) string { return resp.Token + "\n" })
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Node, "node", "", "name of the node (required)")
	f.StringVar(&role, "role", string(snapshot.RoleNode), "node or gateway")
	f.StringArrayVar(&req.Identities, "identity", nil,
		"identity the node may host: NAMESPACE/SERVICEACCOUNT, NAMESPACE/*, where it may be anyone, or *; repeat it")
	f.StringArrayVar(&workloads, "workload", nil,
		"workload it may host: NAMESPACE/NAME[,sa=ACCOUNT] [,LABEL=VALUE...], NAME may end in -*; repeat it")
	f.StringArrayVar(&addresses, "address", nil,
		"address, or range of them, that its workloads or the gateway may have; repeat it")
	f.DurationVar(&req.TTL, "ttl", 15*time.Minute, "how long the token may wait to be used")
	f.StringVar(&out, "out", "", "write the token to this new file, mode 0600, instead of printing it")
	return a.client(cmd)
}

// parseGrant parses the flags that describe the grant.
func parseGrant(cmd *cobra.Command, r *adminapi.TokenRequest, workloads, addresses []string) error {
	for _, text := range workloads {
		w, err := grant.Parse(text)
		if err != nil {
			return usage(cmd, "--workload: %v", err)
		}
		r.Workloads = append(r.Workloads, w)
	}
	for _, text := range addresses {
		p, err := netip.ParsePrefix(text)
		if a, single := netip.ParseAddr(text); single == nil {
			p, err = netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
		}
		if err != nil || p != p.Masked() {
			return usage(cmd, "--address: %q is neither an address nor a range such as 10.0.0.0/24", text)
		}
		r.Addresses = append(r.Addresses, p)
	}
	return nil
}

func checkTokenRequest(cmd *cobra.Command, r adminapi.TokenRequest) error {
	switch {
	case r.Node == "":
		return usage(cmd, "--node is missing: a token is made for one named node")
	case r.Role != snapshot.RoleNode && r.Role != snapshot.RoleGateway:
		return usage(cmd, "--role: %q is neither node nor gateway", r.Role)
	case len(r.Identities) == 0 && len(r.Workloads) == 0:
		return usage(cmd,
			"--identity is missing: without one the node could host nothing; give NAMESPACE/SERVICEACCOUNT, repeated for each, or --workload")
	case r.TTL <= 0:
		return usage(cmd, "--ttl: %s is not a time to live", r.TTL)
	}
	for _, id := range r.Identities {
		ns, sa, ok := strings.Cut(id, "/")
		if id != "*" && (!ok || ns == "" || sa == "" || strings.Contains(sa, "/") || strings.Contains(ns, "*") ||
			(strings.Contains(sa, "*") && sa != "*")) {
			return usage(cmd,
				"--identity: %q is none of NAMESPACE/SERVICEACCOUNT (such as default/payments), NAMESPACE/* and *", id)
		}
	}
	return nil
}
