package cli

import (
	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) exportCmd() *cobra.Command {
	var req adminapi.ExportDraftRequest
	var write string
	cmd := &cobra.Command{
		Use:   "export SERVICE --to PEER",
		Short: "Write the FederatedExport of a service, and its policy",
		Long: `Write the FederatedExport that offers a service to a peer, and, where the workloads behind it
let in no call of the peer, the AuthorizationPolicy that does. SERVICE is a name,
NAMESPACE/NAME or a host, with :PORT where it has several. The objects are printed, and take
effect once they stand in the folder of the configuration; --write puts them there.`,
		Example: `  isthmus export pay --to lab --callers front/web --methods GET
  isthmus export money/pay:80 --to lab --as payments --write /etc/isthmus/mesh`,
		Args: oneArg("the service"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if req.Peer == "" {
				return usage(cmd, "--to PEER is missing: isthmus peer list shows the peers")
			}
			req.Service = args[0]
			resp, err := ask[adminapi.ExportDraftRequest, adminapi.DraftResponse](cmd.Context(), a, "ExportDraft", &req)
			if err != nil {
				return err
			}
			command := "export " + clean(args[0], oneLine) + flagged("to", req.Peer) + flagged("as", req.As) +
				flagged("callers", req.Callers...) + flagged("methods", req.Methods...) + flagged("paths", req.Paths...)
			return a.drafted(cmd, resp, command, write)
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Peer, "to", "", "the peer (required)")
	f.StringVar(&req.As, "as", "", "the name that the peer sees; default: the service's")
	f.StringSliceVar(&req.Callers, "callers", nil,
		"who of the peer may call it: NAMESPACE/ACCOUNT or SPIFFE IDs; default: all")
	f.StringSliceVar(&req.Methods, "methods", nil, "HTTP methods that may be used; default: all")
	f.StringSliceVar(&req.Paths, "paths", nil,
		`paths that may be asked for, with "*" at the end a prefix; default: all`)
	f.StringVar(&write, "write", "", "write to this file, or to one in this folder, instead of printing")
	peers := a.completion(a.peerNames)
	_ = cmd.RegisterFlagCompletionFunc("to",
		func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return peers(cmd, nil, typed)
		}) // fails only for an unknown flag
	cmd.ValidArgsFunction = a.completion(a.hosts)
	return a.client(cmd)
}
