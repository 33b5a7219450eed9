package demo

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/demo/lab"
)

// Command returns `isthmus demo` with its subcommands `exec` and `clean`.
func Command() *cobra.Command {
	o := Options{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Two federated meshes on this machine, until Ctrl-C",
		Long: `Builds two meshes on this machine, a card-data zone and a shop, each with its own control plane, root, subnet, node
and gateway, in network namespaces of its own. Stays up until Ctrl-C, then removes all that it made. Needs root.`,
		Example: "  isthmus demo\n  isthmus demo --tour\n  isthmus demo exec storefront -- \\\n    curl -s http://payments.default/v1/charges/headers",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Out = cmd.OutOrStdout()
			return Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Tour, "tour", false, "try every promise, print one line for each, and succeed only if all held")
	f.BoolVar(&o.Stay, "stay", false, "with --tour: stay up afterwards")
	f.DurationVar(&o.Soak, "soak", 0,
		"disturb everything under load for so long; succeed only if no request failed and nothing grew")
	f.BoolVar(&o.Separate, "separate", false, "do not peer the two meshes: that is left to you")
	f.StringVar(&o.Samples, "samples", "", "the demo's programs (default: isthmus-samples beside this binary)")
	f.StringVar(&o.Envoy, "envoy", "", "the Envoy to run (default: ISTHMUS_ENVOY, then PATH, then the cache)")
	f.StringVar(&o.KeepLogs, "keep-logs", "", "folder to which the logs are copied before everything is removed")
	p := cmd.PersistentFlags()
	p.StringVar(&o.RunDir, "run-dir", DefaultRunDir, "folder that the demo makes and removes")
	p.StringVar(&o.Prefix, "prefix", DefaultPrefix, "beginning of the namespaces' names")
	cmd.AddCommand(execCommand(&o), cleanCommand(&o))
	return cmd
}

func execCommand(o *Options) *cobra.Command {
	return &cobra.Command{
		Use:     "exec WORKLOAD -- COMMAND...",
		Short:   "Run a command as a workload of the running demo",
		Long:    "Runs a command inside a workload's network namespace, with the DNS that the workload has: what the mesh lets the workload do, it lets the command do.",
		Example: "  isthmus demo exec storefront -- \\\n    curl -s http://payments.default/v1/charges/headers\n  isthmus demo exec catalogue -- bash",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			p := newPlan(o.Prefix)
			m, w, ok := p.find(args[0])
			if !ok {
				return fmt.Errorf("the demo has no workload %q: it has %s", args[0], p.workloadNames())
			}
			netns := p.workloadNetns(m, w)
			if _, err := os.Stat(lab.NetnsPath(netns)); err != nil {
				return errors.New("the demo is not running: start it in another terminal with `isthmus demo`")
			}
			if os.Geteuid() != 0 {
				return errors.New("entering a workload's network needs root: use sudo")
			}
			path, err := exec.LookPath(args[1])
			if err != nil {
				return fmt.Errorf("%w: name a command that is installed on this machine", err)
			}
			return lab.Exec(netns, files{o.RunDir}.resolv(netns), path, args[1:], os.Environ())
		},
	}
}

func cleanCommand(o *Options) *cobra.Command {
	return &cobra.Command{
		Use:   "clean",
		Short: "Remove what a crashed demo left (the next demo does it too)",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("removing network namespaces needs root: use sudo")
			}
			p := newPlan(o.Prefix)
			removed, err := lab.Clean(lab.Config{Prefix: p.prefix, Dir: o.RunDir, Network: p.network()})
			for _, r := range removed {
				fmt.Fprintln(cmd.OutOrStdout(), "removed", r)
			}
			if err == nil && len(removed) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing was left")
			}
			return err
		},
	}
}
