package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

func (a *app) peerProbeCmd() *cobra.Command {
	var req adminapi.PeerProbeRequest
	cmd := &cobra.Command{
		Use:   "probe NAME",
		Short: "Try the way through both gateways, leg by leg",
		Long: `Send one request from this control plane through both gateways to the peer's, on new connections all the way, and say
what each leg took or which one is broken, with a remedy. With --import the gateways shake hands under the name of that
import's export, and the peer says whether the service behind it is ready; no request reaches the service. The peer answers
one probe a second, and may refuse them all. Exits with 79 when a leg is broken.`,
		Example: `  isthmus peer probe cards
  isthmus peer probe cards --import default/payments`,
		Args: oneArg("the peer's name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req.Peer = args[0]
			if req.Import != "" && !strings.Contains(req.Import, "/") {
				req.Import = "default/" + req.Import
			}
			resp, err := ask[adminapi.PeerProbeRequest, adminapi.PeerProbeResponse](cmd.Context(), a, "PeerProbe", &req)
			if err != nil {
				return err
			}
			if err := a.print(resp, func(when) string { return probeText(*resp) }); err != nil {
				return err
			}
			if slices.ContainsFunc(resp.Legs, func(l adminapi.ProbeLeg) bool { return l.State != adminapi.LegOK }) {
				return &Error{Code: exitFindings} // the legs have shown everything
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&req.Import, "import", "",
		"a FederatedImport that the peer serves, NAMESPACE/NAME (or NAME in namespace default)")
	cmd.ValidArgsFunction = a.completion(a.peerNames)
	return a.client(cmd)
}

func probeText(r adminapi.PeerProbeResponse) string {
	var b strings.Builder
	t := newTable("STATE", "FROM", "TO", "STEP", "TIME", "DETAIL")
	broken := false
	for _, l := range r.Legs {
		state, ok := map[string]string{
			adminapi.LegOK: "√ well", adminapi.LegFailed: "× broken", adminapi.LegUntried: "· not tried",
		}[l.State]
		if !ok {
			state = "? " + l.State
		}
		broken = broken || l.State != adminapi.LegOK
		detail := l.Detail
		if l.Remedy != "" {
			detail = "see below"
		}
		t.row(state, l.From, l.To, l.Step, millis(l.Took), detail)
	}
	b.WriteString(t.String() + "\n")
	for _, l := range r.Legs {
		if l.Remedy != "" {
			fmt.Fprintf(&b, "× %s: %s\n    → %s\n", clean(l.Step+" of "+l.To, oneLine), clean(l.Detail, oneLine),
				clean(l.Remedy, oneLine))
		}
	}
	if !broken {
		fmt.Fprintf(&b, "Answered in %s. Proven: %s.\n", millis(r.Took), clean(r.Proves, oneLine))
	}
	return b.String()
}

// millis formats the duration of a leg, or returns "" if none was measured.
func millis(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
}
