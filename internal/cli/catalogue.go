package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) catalogueCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "catalogue [PEER]",
		Short:   "What peers offer this mesh",
		Args:    optionalArg("a peer's name"),
		Example: "  isthmus catalogue\n  isthmus catalogue cards",
		RunE: func(cmd *cobra.Command, args []string) error {
			resp, err := ask[adminapi.PeerRequest, adminapi.CatalogueResponse](cmd.Context(), a, "Catalogue",
				peerArg(args))
			if err != nil {
				return err
			}
			return a.print(resp, func(when) string {
				if len(args) == 1 && len(resp.Entries) == 0 {
					return fmt.Sprintf("Nothing is offered by a peer named %s; isthmus peer list shows the peers.\n",
						clean(args[0], oneLine))
				}
				return catalogueText(resp.Entries)
			})
		},
	}
	cmd.ValidArgsFunction = a.completion(a.peerNames)
	return a.client(cmd)
}

func catalogueText(entries []adminapi.CatalogueEntry) string {
	if len(entries) == 0 {
		return "No peer offers anything. A peer offers by a FederatedExport that names this mesh.\n"
	}
	t := newTable("PEER", "NAMESPACE", "NAME", "PORT", "PROTOCOL", "IMPORTED AS")
	for _, e := range entries {
		t.row(e.Peer, e.Namespace, e.Name, fmt.Sprint(e.Port), e.Protocol, strings.Join(e.ImportedAs, ", "))
	}
	return t.String()
}

func peerArg(args []string) *adminapi.PeerRequest {
	if len(args) == 0 {
		return &adminapi.PeerRequest{}
	}
	return &adminapi.PeerRequest{Peer: args[0]}
}
