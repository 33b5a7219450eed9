package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

var xdsTypes = []string{"CDS", "EDS", "LDS", "ECDS", "RDS", "SDS"}

func (a *app) proxyCmd() *cobra.Command {
	return family("proxy", "What a proxy was sent", a.proxyConfigCmd())
}

func (a *app) proxyConfigCmd() *cobra.Command {
	var req adminapi.ProxyConfigRequest
	cmd := &cobra.Command{
		Use:   "config NAME",
		Short: "Each Envoy resource of a proxy, with the objects it comes from",
		Example: `  isthmus proxy config cards-node
  isthmus proxy config cards-node --type rds -o yaml`,
		Args: oneArg("a proxy's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Name = args[0]
			if err := xdsType(cmd, &req.Type); err != nil {
				return err
			}
			resp, err := ask[adminapi.ProxyConfigRequest, adminapi.ProxyConfigResponse](cmd.Context(), a, "ProxyConfig",
				&req)
			if err != nil {
				return err
			}
			return a.print(resp, func(w when) string { return resourcesText(resp.Resources, w) })
		},
	}
	typeFlag(cmd, &req.Type)
	cmd.ValidArgsFunction = a.completion(a.proxyNames)
	return a.client(cmd)
}

func typeFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "type", "", "only cds, eds, lds, ecds, rds or sds")
	// fails only for an unknown flag
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(xdsTypes, cobra.ShellCompDirectiveNoFileComp))
}

func xdsType(cmd *cobra.Command, t *string) error {
	*t = strings.ToUpper(*t)
	if *t != "" && !slices.Contains(xdsTypes, *t) {
		return usage(cmd, "--type: %q is none of cds, eds, lds, ecds, rds, sds", strings.ToLower(*t))
	}
	return nil
}

func resourcesText(rs []adminapi.ProxyResource, w when) string {
	if len(rs) == 0 {
		return "Nothing of that was sent.\n"
	}
	t := newTable("TYPE", "NAME", "VERSION", "BYTES", "FROM")
	for _, r := range rs {
		version := r.Version
		if !w.wide && len(version) > 8 {
			version = version[:8]
		}
		t.row(r.Type, r.Name, version, fmt.Sprint(r.Bytes), strings.Join(r.Objects, ", "))
	}
	return t.String() + "\nWhole: -o yaml\n"
}
