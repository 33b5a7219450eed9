package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) exportsCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "exports [PEER]",
		Example: "  isthmus exports\n  isthmus exports bank",
		Short:   "What this mesh offers its peers",
		Args:    optionalArg("a peer's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := ask[adminapi.PeerRequest, adminapi.ExportsResponse](cmd.Context(), a, "Exports", peerArg(args))
			if err != nil {
				return err
			}
			return a.print(resp, func(w when) string {
				if len(args) == 1 && len(resp.Exports) == 0 {
					return fmt.Sprintf("Nothing is offered to a peer named %s; isthmus exports shows what is offered to whom.\n", clean(args[0], oneLine))
				}
				return exportsText(resp.Exports, w)
			})
		},
	}
	cmd.ValidArgsFunction = a.completion(a.peerNames)
	return a.client(cmd)
}

func exportsText(exports []adminapi.ExportStatus, w when) string {
	if len(exports) == 0 {
		return "This mesh offers nothing. To offer a service: isthmus export SERVICE --to PEER.\n"
	}
	head := []string{"EXPORT", "SERVICE", "PORT", "PROTOCOL", "ALIAS", "PEER", "RULES", "ENDPOINTS", "STATE"}
	if w.wide {
		head = append(head, "SNI")
	}
	t := newTable(head...)
	for _, e := range exports {
		cells := []string{
			e.Name, e.Service, fmt.Sprint(e.Port), e.Protocol, e.Alias, e.Peer, fmt.Sprint(e.Rules),
			fmt.Sprint(e.Endpoints), e.State,
		}
		if w.wide {
			cells = append(cells, e.SNI)
		}
		t.row(cells...)
	}
	return t.String()
}
