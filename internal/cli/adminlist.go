package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) adminListCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Example: "  isthmus admin list",
		Short:   "Administrators' certificates: owner, issuer, expiry",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := ask[adminapi.Empty, adminapi.AdminListResponse](cmd.Context(), a, "AdminList",
				&adminapi.Empty{})
			if err != nil {
				return err
			}
			return a.print(resp, func(w when) string { return adminsText(resp.Admins, w) })
		},
	}
	return a.client(cmd)
}

func adminsText(admins []adminapi.AdminCert, w when) string {
	if len(admins) == 0 {
		return "No administrator has a certificate.\n"
	}
	head := []string{"NAME", "ID", "MADE", "BY", "ENDS", "STATE"}
	if w.wide {
		head = append(head, "SERIAL")
	}
	t := newTable(head...)
	for _, c := range admins {
		state := "good"
		switch {
		case !c.Revoked.IsZero():
			state = "revoked " + w.past(c.Revoked)
		case !c.NotAfter.After(w.now):
			state = "ended"
		}
		row := []string{c.Name, c.ID, w.past(c.Created), c.MadeBy, w.future(c.NotAfter), state}
		if w.wide {
			row = append(row, c.Serial)
		}
		t.row(row...)
	}
	return t.String()
}

func (a *app) adminRevokeCmd() *cobra.Command {
	var yes bool
	var req adminapi.AdminRevokeRequest
	cmd := &cobra.Command{
		Use:   "revoke [NAME]",
		Short: "End an administrator's certificates at once",
		Long: `End an administrator's certificates at once, on open connections too: all of a name, or one by its ID. What was made with
them stays: isthmus token list says which join tokens, isthmus events what else.`,
		Example: "  isthmus admin revoke ada\n  isthmus admin revoke --id 3f9c2a17be540d86",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (req.ID != "") {
				return usage(cmd,
					"give an administrator's name, or --id with one certificate's; isthmus admin list shows both")
			}
			if len(args) == 1 {
				req.Name = args[0]
			}
			if err := a.confirm(cmd, yes, req.Name+req.ID,
				fmt.Sprintf("Revoking %q ends its certificates for good.", req.Name+req.ID)); err != nil {
				return err
			}
			resp, err := ask[adminapi.AdminRevokeRequest, adminapi.AdminRevokeResponse](cmd.Context(), a, "AdminRevoke",
				&req)
			if err != nil {
				return err
			}
			a.warnUnwritten(resp.Ended)
			return a.print(resp, func(when) string { return adminRevokedText(resp.Admins) })
		},
	}
	cmd.Flags().StringVar(&req.ID, "id", "", "revoke this one certificate")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	return a.client(cmd)
}

func adminRevokedText(admins []adminapi.AdminCert) string {
	var b strings.Builder
	for _, c := range admins {
		fmt.Fprintf(&b, "Revoked certificate %s of administrator %s.\n", c.ID, clean(c.Name, oneLine))
	}
	return b.String() + "  Next: isthmus token list, for the join tokens that were made with it\n"
}

// warnUnwritten warns that a restart would undo the command.
func (a *app) warnUnwritten(e adminapi.Ended) {
	if e.Unwritten != "" {
		fmt.Fprintf(a.Err,
			"In force, but not stored yet: a restart of the control plane now would forget it. It is tried again until it is stored; isthmus check says when.\n  Why: %s\n",
			clean(e.Unwritten, oneLine))
	}
}
