package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) caCmd() *cobra.Command {
	return family("ca", "The mesh's own root certificate", a.caStatusCmd(), a.caRotateCmd())
}

func (a *app) caStatusCmd() *cobra.Command {
	return a.client(&cobra.Command{
		Use:     "status",
		Example: "  isthmus ca status",
		Short:   "The trusted roots, and how far a rotation has come",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := ask[adminapi.Empty, adminapi.CAStatusResponse](cmd.Context(), a, "CAStatus", &adminapi.Empty{})
			if err != nil {
				return err
			}
			return a.print(resp, func(w when) string { return caText(*resp, w) })
		},
	})
}

func (a *app) caRotateCmd() *cobra.Command {
	var req adminapi.CARotateRequest
	var yes bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the mesh's root without a failed request",
		Long: `Replace the mesh's root certificate by a new one, without a failed request. The new root is trusted beside the old one
first; it signs when every node, gateway and peer has acknowledged it; the old one is withdrawn when no certificate in use
leads to it any more. The control plane goes on by itself, also after a restart: isthmus ca status says how far it is, and
for whom it waits.

--force takes the present step without those for whom it waits. Who then does not trust the new root, or has no certificate
under it, is cut off: nodes join again with new tokens, peers peer anew.`,
		Example: `  isthmus ca rotate
  isthmus ca status
  isthmus ca rotate --force`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if req.Force && req.Cancel {
				return usage(cmd, "give either --force or --cancel, not both")
			}
			before, err := ask[adminapi.Empty, adminapi.CAStatusResponse](cmd.Context(), a, "CAStatus",
				&adminapi.Empty{})
			if err != nil {
				return err
			}
			if err := a.confirmTyped(cmd, yes, rotateArgs(req), before.TrustDomain,
				rotateEffect(req, *before)); err != nil {
				return err
			}
			resp, err := ask[adminapi.CARotateRequest, adminapi.CAStatusResponse](cmd.Context(), a, "CARotate", &req)
			if err != nil {
				return err
			}
			return a.print(resp, func(w when) string { return caText(*resp, w) })
		},
	}
	cmd.Flags().BoolVar(&req.Force, "force", false, "take the present step without those for whom it waits")
	cmd.Flags().BoolVar(&req.Cancel, "cancel", false, "withdraw the new root, while it has not signed yet")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask for confirmation")
	return a.client(cmd)
}

func rotateArgs(r adminapi.CARotateRequest) string {
	switch {
	case r.Force:
		return " --force"
	case r.Cancel:
		return " --cancel"
	}
	return ""
}

// rotateEffect describes what is about to happen, for the confirmation prompt.
func rotateEffect(r adminapi.CARotateRequest, s adminapi.CAStatusResponse) string {
	switch {
	case r.Cancel:
		return fmt.Sprintf("This withdraws the new root of %s.", s.TrustDomain)
	case r.Force && s.Rotation != nil && len(s.Rotation.Waits) > 0:
		var names []string
		for _, w := range s.Rotation.Waits {
			names = append(names, w.What+" "+w.Name)
		}
		return fmt.Sprintf("This goes on without %s: each may be cut off for good.", strings.Join(names, ", "))
	case r.Force:
		return fmt.Sprintf("This takes the next step of the rotation in %s at once.", s.TrustDomain)
	}
	return fmt.Sprintf("This replaces the root of %s. Every node, gateway and peer follows by itself; whoever is away is waited for.", s.TrustDomain)
}

// patience is how long a step may take before the output says what to do.
const patience = 20 * time.Second

// steps describes what happens in each step of a rotation.
var steps = map[string]string{
	"prepared":    "the new root is trusted beside the old one, which signs; everybody has to acknowledge both",
	"distributed": "everybody trusts both roots; the new one is about to sign",
	"activated":   "the new root signs; certificates under the old one are being replaced",
	"drained":     "no certificate in use leads to the old root; it is about to be withdrawn",
	"done":        "the old root is trusted no more, and its key is destroyed",
	"cancelled":   "the new root was withdrawn before it signed anything",
}

func caText(s adminapi.CAStatusResponse, w when) string {
	var b strings.Builder
	kind := "kept by Isthmus"
	if s.Operator {
		kind = "an operator's: isthmus ca rotate does not replace it"
	}
	b.WriteString(facts([2]string{"trust domain", s.TrustDomain}, [2]string{"root", kind}) + "\n")
	roots := newTable("ROOT", "SIGNS", "ENDS")
	for _, r := range s.Roots {
		fingerprint := r.SHA256
		if !w.wide {
			fingerprint = shortFingerprint(fingerprint)
		}
		signs := "no"
		if r.Signs {
			signs = "yes"
		}
		roots.row(fingerprint, signs, w.future(r.NotAfter))
	}
	b.WriteString(roots.String() + "\n")
	if s.Rotation == nil {
		b.WriteString("The root was never replaced; isthmus ca rotate does it, when there is a reason to.\n")
		return b.String()
	}
	b.WriteString(rotationText(*s.Rotation, w))
	return b.String()
}

func rotationText(r adminapi.CARotation, w when) string {
	over := r.Step == "done" || r.Step == "cancelled"
	rows := [][2]string{
		{"rotation", fmt.Sprintf("%s since %s: %s", r.Step, w.past(r.Since), steps[r.Step])},
		{"began", w.past(r.Began)},
		{"old root", groupFingerprint(r.OldSHA256)},
		{"new root", groupFingerprint(r.NewSHA256)},
	}
	for _, p := range r.Passed {
		rows = append(rows, [2]string{"left behind", p})
	}
	if r.Error != "" {
		rows = append(rows, [2]string{"failed last", r.Error + "; it is tried again"})
	}
	if !over && !r.Expected.IsZero() {
		rows = append(rows, [2]string{"step ends", w.future(r.Expected)})
	}
	text := facts(rows...)
	if len(r.Waits) == 0 {
		return text
	}
	t := newTable("WAITS FOR", "NAME", "UNTIL", "WHY")
	for _, wait := range r.Waits {
		t.row(wait.What, wait.Name, w.future(wait.Until), wait.Why)
	}
	text += "\n" + t.String()
	if w.now.Sub(r.Since) > patience {
		text += "  Next: bring them back, or go on without them: isthmus ca rotate --force\n"
	}
	return text
}
