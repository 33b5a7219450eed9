package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) nodeRevokeCmd() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Revoke a node or gateway",
		Long: `Revoke a node or gateway. Its connections to the control plane are closed and refused from then on, join tokens made for
it are void, and its workloads are out of every other proxy's endpoints at once. The certificates that it holds for them are
good at other workloads until they end; isthmus ca rotate invalidates them when it is complete, and does not wait for revoked nodes.
A new join token lets a node of that name in again. isthmus status lists the nodes.`,
		Example: "  isthmus node revoke rack1",
		Args:    oneArg("the node's or gateway's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			effect := fmt.Sprintf("Revoking %q shuts it out; its workloads and those who call them are cut off.",
				args[0])
			if err := a.confirm(cmd, yes, args[0], effect); err != nil {
				return err
			}
			resp, err := ask[adminapi.NodeRequest, adminapi.RevokedNode](cmd.Context(), a, "RevokeNode",
				&adminapi.NodeRequest{Node: args[0]})
			if err != nil {
				return err
			}
			a.warnUnwritten(resp.Ended)
			return a.print(resp, func(w when) string { return revokedText(*resp, w) })
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	cmd.ValidArgsFunction = a.completion(a.proxyNames)
	return a.client(cmd)
}

func revokedText(r adminapi.RevokedNode, w when) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Revoked %q: the control plane refuses it from now on, and no call is sent to its workloads.\n",
		clean(r.Node, oneLine))
	if len(r.Certificates) == 0 {
		return b.String() + "It holds no certificate of a workload.\n  Next: isthmus status\n"
	}
	b.WriteString("Other workloads accept these certificates until they end:\n\n")
	t := newTable("IDENTITY", "ENDS")
	for _, c := range r.Certificates {
		t.row(c.SPIFFEID, w.future(c.NotAfter))
	}
	return b.String() + t.String() +
		"\n  Next: isthmus ca rotate, which ends them when it is done and fails no request of others\n"
}
