package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/finding"
)

func (a *app) validateCmd() *cobra.Command {
	var dir string
	var nodes []string
	cmd := &cobra.Command{
		Use:   "validate -f DIR",
		Short: "Check a folder of configuration",
		Long: `Whether a folder of configuration holds mistakes: nothing is asked, nothing is changed. Without the agents'
settings files it knows no workloads but those of WorkloadEntry objects, so it says nothing of selectors.
Exits with 79 when the configuration holds an error.`,
		Example: `  isthmus validate -f mesh/
  isthmus validate -f mesh/ --node-config rack1.yaml --node-config rack2.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usage(cmd, "-f DIR is missing: name the folder of YAML that describes the mesh")
			}
			_, fs, err := a.verbs.Render(cmd.Context(), dir, nodes, "")
			if err != nil {
				return badInput("isthmus validate --help", "%s", err)
			}
			resp := struct {
				Findings []finding.Finding `json:"findings"`
			}{fs}
			text := func(w when) string { return findingsText(fs, w.wide) + unchecked(nodes) }
			if err := a.print(resp, text); err != nil {
				return err
			}
			return findingsError(fs)
		},
	}
	cmd.Flags().StringVarP(&dir, "filename", "f", "", "folder of YAML that describes the mesh (required)")
	cmd.Flags().StringArrayVar(&nodes, "node-config", nil, "an agent's settings file, for its workloads; repeat it")
	return a.printer(cmd)
}

// unchecked returns what was not checked for want of the agents' settings files.
func unchecked(nodes []string) string {
	if len(nodes) > 0 {
		return ""
	}
	return "Selectors were not checked. Next: --node-config with each node's settings\n"
}

// findingsError returns the exit code for findings that are already printed.
func findingsError(fs []finding.Finding) error {
	if slices.ContainsFunc(fs, func(f finding.Finding) bool { return f.Severity == finding.Error }) {
		return &Error{Code: exitFindings}
	}
	return nil
}
