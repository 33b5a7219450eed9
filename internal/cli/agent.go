package cli

import (
	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/snapshot"
)

func (a *app) nodeCmd() *cobra.Command {
	cmd := a.agentCmd(&cobra.Command{
		Use:     "node",
		Short:   "Run this host's agent: Envoy, capture and DNS for its workloads",
		Example: "  isthmus node --config /etc/isthmus/node.yaml --token-file token\n  isthmus node --config /etc/isthmus/node.yaml --mode sidecar",
	}, snapshot.RoleNode)
	cmd.AddCommand(a.nodeRevokeCmd())
	return cmd
}

func (a *app) gatewayCmd() *cobra.Command {
	return a.agentCmd(&cobra.Command{
		Use:     "gateway",
		Short:   "Run a gateway: the one door between this mesh and its peers",
		Example: "  isthmus gateway --config /etc/isthmus/gateway.yaml --token-file token",
	}, snapshot.RoleGateway)
}

func (a *app) agentCmd(cmd *cobra.Command, role snapshot.Role) *cobra.Command {
	agent := Agent{Role: role}
	log := config.Default().Log
	level := log.Level.String()
	cmd.Args = noArgs
	f := cmd.Flags()
	f.StringVar(&agent.Settings, "config", "", "settings file (YAML)")
	f.StringVar(&agent.TokenFile, "token-file", "",
		"file with the join token, or - for standard input; needed until the first identity is kept")
	if role == snapshot.RoleNode {
		f.StringVar(&agent.Mode, "mode", "",
			"node (one Envoy for all workloads) or sidecar (one Envoy a workload); default: that of the settings")
	}
	f.StringVar(&level, "log-level", level, "debug, info, warn or error")
	f.StringVar(&log.Format, "log-format", log.Format, "text or json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if agent.Settings == "" {
			return usage(cmd, "--config is missing: name the agent's settings file")
		}
		if err := log.Level.UnmarshalText([]byte(level)); err != nil {
			return usage(cmd, "--log-level: %q is none of debug, info, warn, error", level)
		}
		if log.Format != "text" && log.Format != "json" {
			return usage(cmd, "--log-format: %q is neither text nor json", log.Format)
		}
		if agent.TokenFile == "-" {
			agent.TokenFile = "/dev/stdin"
		}
		return a.verbs.Agent(cmd.Context(), agent, logger(a.Err, log))
	}
	return cmd
}
