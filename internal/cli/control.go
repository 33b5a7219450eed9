package cli

import (
	"io"
	"log/slog"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"isthmus.dev/isthmus/internal/config"
)

func (a *app) controlCmd() *cobra.Command {
	var file string
	flags := config.Default()
	level := flags.Log.Level.String()
	cmd := &cobra.Command{
		Use:   "control",
		Short: "Run the control plane of one mesh",
		Example: `  isthmus control --config-dir samples/cards --state /var/lib/isthmus/state.db
  isthmus control --config /etc/isthmus/control.yaml`,
		Args: noArgs,
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", "", "settings file (YAML); flags win over it")
	f.StringVar(&flags.ConfigDir, "config-dir", "", "folder of YAML that describes the mesh, watched")
	f.StringVar(&flags.StateFile, "state", "", "SQLite file of everything that is not configuration, made when absent")
	f.StringVar(&flags.KeyFile, "key-file", "",
		"key that encrypts private keys in the state file, made when absent (default STATE.key)")
	f.StringVar(&flags.Socket, "socket", flags.Socket, "Unix socket for this command line")
	f.StringVar(&flags.AgentAddress, "agent-address", flags.AgentAddress,
		"where agents and remote administrators connect (mutual TLS)")
	f.StringVar(&flags.PeeringAddress, "peering-address", flags.PeeringAddress,
		"where this mesh's gateways forward peers' control traffic (mutual TLS)")
	f.StringVar(&flags.MetricsAddress, "metrics-address", flags.MetricsAddress, "Prometheus metrics (mutual TLS)")
	f.StringVar(&flags.HealthAddress, "health-address", flags.HealthAddress,
		"/healthz and /readyz, plaintext: keep it on loopback")
	f.StringVar(&level, "log-level", level, "debug, info, warn or error")
	f.StringVar(&flags.Log.Format, "log-format", flags.Log.Format, "text or json")

	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := flags.Log.Level.UnmarshalText([]byte(level)); err != nil {
			return usage(cmd, "--log-level: %q is none of debug, info, warn, error", level)
		}
		settings := config.Default()
		if file != "" {
			var err error
			if settings, err = config.Load(file); err != nil {
				return badInput("docs/cli.md lists every setting", "%s", err)
			}
		}
		override(f, flags, &settings)
		settings, err := settings.Complete()
		if err != nil {
			return badInput("isthmus control --help", "%s", err)
		}
		return a.verbs.Control(cmd.Context(), settings, logger(a.Err, settings.Log))
	}
	return cmd
}

// override copies each setting whose flag was given.
func override(f *pflag.FlagSet, from config.Control, to *config.Control) {
	for _, s := range []struct {
		flag string
		set  func()
	}{
		{"config-dir", func() { to.ConfigDir = from.ConfigDir }},
		{"state", func() { to.StateFile = from.StateFile }},
		{"key-file", func() { to.KeyFile = from.KeyFile }},
		{"socket", func() { to.Socket = from.Socket }},
		{"agent-address", func() { to.AgentAddress = from.AgentAddress }},
		{"peering-address", func() { to.PeeringAddress = from.PeeringAddress }},
		{"metrics-address", func() { to.MetricsAddress = from.MetricsAddress }},
		{"health-address", func() { to.HealthAddress = from.HealthAddress }},
		{"log-level", func() { to.Log.Level = from.Log.Level }},
		{"log-format", func() { to.Log.Format = from.Log.Format }},
	} {
		if f.Changed(s.flag) {
			s.set()
		}
	}
}

func logger(w io.Writer, l config.Log) *slog.Logger {
	opts := &slog.HandlerOptions{Level: l.Level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}
