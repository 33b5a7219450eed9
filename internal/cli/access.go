package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) accessCmd() *cobra.Command {
	var from, to string
	cmd := &cobra.Command{
		Use:   "access",
		Short: "Who may call whom, and by which policies",
		Long: `Who may call whom, and by which policies. A rule may narrow an allowed pair further, to methods, paths or addresses;
a pair that is not listed cannot talk at all.`,
		Example: `  isthmus access
  isthmus access --to payments.default.svc.cluster.local`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := ask[adminapi.Empty, adminapi.AccessResponse](cmd.Context(), a, "Access", &adminapi.Empty{})
			if err != nil {
				return err
			}
			resp.Edges = slices.DeleteFunc(resp.Edges, func(e adminapi.AccessEdge) bool {
				return (from != "" && e.From != from) || (to != "" && e.To != to && !strings.HasPrefix(e.To, to+":"))
			})
			return a.print(resp, func(when) string {
				if len(resp.Edges) == 0 && from+to != "" {
					return "No pair like this may talk; isthmus access lists those that may.\n"
				}
				return accessText(resp.Edges)
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "only this caller, NAMESPACE/WORKLOAD")
	cmd.Flags().StringVar(&to, "to", "", "only this destination, HOST or HOST:PORT")
	return a.client(cmd)
}

func accessText(edges []adminapi.AccessEdge) string {
	if len(edges) == 0 {
		return "No workload may call another: no policy in force allows it between workloads that are registered.\n  Next: isthmus status --findings\n"
	}
	t := newTable("FROM", "TO", "BY")
	for _, e := range edges {
		t.row(e.From, e.To, strings.Join(e.By, ", "))
	}
	return t.String()
}
