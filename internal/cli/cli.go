// Package cli is the command line, with a file per verb. Pure functions format the control plane's answers, so that
// each table is tested as text.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/version"
)

// World is the environment of the commands.
type World struct {
	In       io.Reader
	Out, Err io.Writer
	Now      func() time.Time
	Terminal bool // In is a terminal, so the user can be prompted
	Getenv   func(string) string
}

// Verbs are the parts of Isthmus that commands start. cmd/isthmus sets them.
type Verbs struct {
	Control func(ctx context.Context, settings config.Control, log *slog.Logger) error
	Agent   func(ctx context.Context, a Agent, log *slog.Logger) error
	Render  func(ctx context.Context, dir string, nodeSettings []string, proxy string) ([]adminapi.ProxyResource,
		[]finding.Finding, error)
	Demo func() *cobra.Command
}

// Agent holds the arguments for starting an agent.
type Agent struct {
	Role      snapshot.Role
	Settings  string // file
	TokenFile string // empty for none
	Mode      string // empty for the one in the settings; nodes only
}

// app is one run of the command line.
type app struct {
	World
	verbs  Verbs
	output output
	dial   dialer
}

// Main runs one command and returns its exit code.
func Main(ctx context.Context, args []string, w World, v Verbs) int {
	a := &app{World: w, verbs: v}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(w.In)
	root.SetOut(w.Out)
	root.SetErr(w.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: exitFailed, Text: err.Error()}
	}
	if e.Text != "" {
		fmt.Fprintf(w.Err, "isthmus: %s\n", clean(e.Text, keepLines))
	}
	if e.Next != "" {
		fmt.Fprintf(w.Err, "  Next: %s\n", e.Next)
	}
	return e.Code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "isthmus",
		Short:         "A zero-trust service mesh whose meshes meet only at guarded gateways",
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("isthmus {{.Version}}\n")
	foldHelp(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(cmd, "%s", err)
	})
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "ask", Title: "Ask:"},
		&cobra.Group{ID: "peer", Title: "Federate:"},
		&cobra.Group{ID: "admin", Title: "Administer:"},
	)
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", a.controlCmd(), a.nodeCmd(), a.gatewayCmd())
	if a.verbs.Demo != nil {
		add("run", usageOf(a.verbs.Demo()))
	}
	add("ask", a.statusCmd(), a.checkCmd(), a.servicesCmd(), a.endpointsCmd(), a.describeCmd(), a.accessCmd(),
		a.logsCmd(),
		a.eventsCmd(), a.certCmd(), a.proxyCmd(), a.validateCmd(), a.renderCmd())
	add("peer", a.peerCmd(), a.catalogueCmd(), a.exportCmd(), a.exportsCmd(), a.importCmd(), a.importsCmd())
	add("admin", a.tokenCmd(), a.adminCmd(), a.caCmd(), a.versionCmd())
	return root
}

// client adds the connection flags and the output flag to a command.
func (a *app) client(cmd *cobra.Command) *cobra.Command {
	environment := ""
	if a.Getenv != nil {
		environment = a.Getenv(socketVariable)
	}
	a.dial.flags(cmd.Flags(), environment)
	return a.printer(cmd)
}

// printer adds the output flag to a command.
func (a *app) printer(cmd *cobra.Command) *cobra.Command {
	a.output = formatTable
	cmd.Flags().VarP(&a.output, "output", "o", "table, wide, json or yaml")
	// fails only for an unknown flag
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// usageOf makes a foreign command and its subcommands report usage errors like this command line.
func usageOf(cmd *cobra.Command) *cobra.Command {
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usage(cmd, "%s: %s", cmd.CommandPath(), err)
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		usageOf(c)
	}
	return cmd
}

// family returns a command that only groups others.
func family(use, short string, cmds ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	c.AddCommand(cmds...)
	return c
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		text := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0])
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			text += fmt.Sprintf(" (%s?)", near[0])
		}
		return usage(cmd, "%s", text)
	}
	return usage(cmd, "%s takes no argument, and got %q", cmd.CommandPath(), args[0])
}

// oneArg requires exactly one argument, named what.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(cmd, "%s takes one argument, %s, and got %d", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}

// optionalArg allows at most one argument, named what.
func optionalArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usage(cmd, "%s takes at most one argument, %s, and got %d", cmd.CommandPath(), what, len(args))
		}
		return nil
	}
}
