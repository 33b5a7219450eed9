package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) renderCmd() *cobra.Command {
	var dir, proxy, kind string
	var nodes []string
	cmd := &cobra.Command{
		Use:   "render -f DIR --proxy NAME",
		Short: "What the control plane would send a proxy, from files alone",
		Long: `What the control plane would send a proxy, from files alone: nothing is asked, nothing is changed.
The workloads come from the agents' settings files; without one there are none but WorkloadEntry objects.
Exits with 79 when the configuration holds an error. isthmus validate only checks it.`,
		Example: `  isthmus render -f mesh/ --node-config node.yaml --proxy rack1
  isthmus render -f mesh/ --node-config node.yaml --proxy rack1 \
    --type rds -o yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usage(cmd, "-f DIR is missing: name the folder of YAML that describes the mesh")
			}
			if proxy == "" {
				return usage(cmd,
					"--proxy NAME is missing: name the node or gateway; isthmus validate -f %s checks the files", dir)
			}
			if err := xdsType(cmd, &kind); err != nil {
				return err
			}
			rs, fs, err := a.verbs.Render(cmd.Context(), dir, nodes, proxy)
			if err != nil {
				return badInput("isthmus render --help", "%s", err)
			}
			if kind != "" {
				rs = slices.DeleteFunc(rs, func(r adminapi.ProxyResource) bool { return r.Type != kind })
			}
			if len(fs) > 0 {
				fmt.Fprint(a.Err, findingsText(fs, false))
			}
			err = a.print(adminapi.ProxyConfigResponse{Resources: rs},
				func(w when) string { return resourcesText(rs, w) })
			if err != nil {
				return err
			}
			return findingsError(fs)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&dir, "filename", "f", "", "folder of YAML that describes the mesh (required)")
	f.StringVar(&proxy, "proxy", "", "name of the node or gateway (required)")
	f.StringArrayVar(&nodes, "node-config", nil, "an agent's settings file, for its workloads; repeat it")
	typeFlag(cmd, &kind)
	return a.printer(cmd)
}
