package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) checkCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the mesh: what works, and what to fix",
		Long:  "Check the mesh: √ ok, ‼ warning, × broken, with a remedy for each. Exits with 79 when something is broken.",
		Example: `  isthmus check
  isthmus check -o json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := ask[adminapi.Empty, adminapi.CheckResponse](cmd.Context(), a, "Check", &adminapi.Empty{})
			if err != nil {
				return err
			}
			if err := a.print(resp, func(when) string { return checkText(resp.Checks) }); err != nil {
				return err
			}
			if _, _, failed := tally(resp.Checks); failed > 0 {
				return &Error{Code: exitFindings} // the list has shown everything
			}
			return nil
		},
	}
	return a.client(cmd)
}

func checkText(checks []adminapi.Check) string {
	var b strings.Builder
	for _, c := range checks {
		mark, ok := map[string]string{"ok": "√", "warning": "‼", "failed": "×"}[c.State]
		if !ok {
			mark = "?"
		}
		fmt.Fprintf(&b, "%s %s: %s\n", mark, clean(c.Name, oneLine), clean(c.Detail, oneLine))
		if c.Remedy != "" {
			fmt.Fprintf(&b, "    → %s\n", clean(c.Remedy, oneLine))
		}
	}
	ok, warned, failed := tally(checks)
	fmt.Fprintf(&b, "\n%d ok, %d to watch, %d broken\n", ok, warned, failed)
	return b.String()
}

// tally counts checks by state. An unknown state counts as failed.
func tally(checks []adminapi.Check) (ok, warned, failed int) {
	for _, c := range checks {
		switch c.State {
		case "ok":
			ok++
		case "warning":
			warned++
		default:
			failed++
		}
	}
	return ok, warned, failed
}
