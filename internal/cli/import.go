package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) importCmd() *cobra.Command {
	var req adminapi.ImportDraftRequest
	var write string
	cmd := &cobra.Command{
		Use:   "import PEER/NAME",
		Short: "Write the FederatedImport of what a peer offers",
		Long: `Write the FederatedImport of what a peer offers (isthmus catalogue): its port and protocol are the
offer's. NAME is the offer's name, or NAMESPACE/NAME. The object is printed, and takes
effect once it stands in the folder of the configuration; --write puts it there.`,
		Example: `  isthmus import bank/pay --as front/pay --callers web
  isthmus import bank/pay --callers front/web --write /etc/isthmus/mesh`,
		Args: oneArg("the offer, PEER/NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			peer, name, ok := strings.Cut(args[0], "/")
			if !ok || peer == "" || name == "" {
				return usage(cmd, "%q is not PEER/NAME: isthmus catalogue lists what peers offer", args[0])
			}
			req.Peer, req.Name = peer, name
			resp, err := ask[adminapi.ImportDraftRequest, adminapi.DraftResponse](cmd.Context(), a, "ImportDraft", &req)
			if err != nil {
				return err
			}
			command := "import " + args[0] + flagged("as", req.As) + flagged("callers", req.Callers...)
			return a.drafted(cmd, resp, command, write)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.As, "as", "", "its name here, NAMESPACE/NAME; default: as the peer offers it")
	f.StringSliceVar(&req.Callers, "callers", nil, "who may call it: service accounts, ACCOUNT or NAMESPACE/ACCOUNT")
	f.StringVar(&write, "write", "", "write to this file, or to one in this folder, instead of printing")
	cmd.ValidArgsFunction = a.completion(a.offers)
	return a.client(cmd)
}

// offers returns the peers' offers as PEER/NAMESPACE/NAME.
func (a *app) offers(ctx context.Context) ([]string, error) {
	resp, err := ask[adminapi.PeerRequest, adminapi.CatalogueResponse](ctx, a, "Catalogue", &adminapi.PeerRequest{})
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range resp.Entries {
		out = append(out, e.Peer+"/"+e.Namespace+"/"+e.Name)
	}
	return out, nil
}

// flagged formats a flag as it was given, or returns "" if it was not.
func flagged(name string, values ...string) string {
	text := strings.Join(values, ",")
	if text == "" {
		return ""
	}
	return " --" + name + " " + clean(text, oneLine)
}
