package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
)

// maxEvents is the control plane's limit of events per answer.
const maxEvents = 10_000

func (a *app) eventsCmd() *cobra.Command {
	var req adminapi.EventsRequest
	var since string
	cmd := &cobra.Command{
		Use:   "events",
		Short: "What was done to the mesh, and what was refused",
		Long: `What was done to the mesh, and what was refused: by whom, from where, how it ended. What administrators did, nodes that
joined and peerings are kept one by one for at least 400 days. Refusals of others are counted by caller, address and reason, and
kept for 30 days after the last; however many there are, they take no place from what was done.`,
		Example: "  isthmus events\n  isthmus events --since 24h --actor ada\n  isthmus events --action token -n 20 -o wide",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if req.Since, err = parseTime(since, a.Now()); err != nil {
				return usage(cmd, "--since: %s", err)
			}
			if req.Limit < 1 || req.Limit > maxEvents {
				return usage(cmd, "-n: say 1 to %d", maxEvents)
			}
			resp, err := ask[adminapi.EventsRequest, adminapi.EventsResponse](cmd.Context(), a, "Events", &req)
			if err != nil {
				return err
			}
			return a.print(resp, func(w when) string {
				if len(resp.Events) == 0 && since+req.Actor+req.Action != "" {
					return "Nothing like this is on record; isthmus events shows the latest.\n"
				}
				return eventsText(resp.Events, w)
			})
		},
	}
	cmd.Flags().StringVar(&since, "since", "",
		"only what came after: a duration such as 24h or 7d, or a time such as 2026-03-01T12:00:00Z")
	cmd.Flags().StringVar(&req.Actor, "actor", "", "only actors whose name contains this")
	cmd.Flags().StringVar(&req.Action, "action", "", "only actions whose name contains this, such as token")
	cmd.Flags().IntVarP(&req.Limit, "number", "n", 100, "how many of the latest events, and of kinds of refusals")
	return a.client(cmd)
}

// parseTime parses a time, or a duration before now.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	d, err := days(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w, nor a moment such as 2026-03-01T12:00:00Z", err)
	}
	return now.Add(-d), nil
}

func eventsText(events []adminapi.Event, w when) string {
	if len(events) == 0 {
		return "Nothing is on record.\n"
	}
	head := []string{"WHEN", "WHO", "FROM", "DID", "TO", "OUTCOME"}
	if w.wide {
		head = append(head, "SEQ", "FIRST")
	}
	t := newTable(append(head, "DETAIL")...)
	for _, e := range events {
		outcome := e.Outcome
		switch {
		case e.Count > 1:
			outcome = fmt.Sprintf("%s ×%d", e.Outcome, e.Count)
		case e.Outcome == "begun":
			outcome = "begun, end not known"
		}
		row := []string{formatTime(e.Time), e.Actor, e.From, e.Action, e.Object, outcome}
		if w.wide {
			seq, first := "", ""
			if e.Seq > 0 {
				seq = fmt.Sprint(e.Seq)
			} else {
				first = formatTime(e.First)
			}
			row = append(row, seq, first)
		}
		t.row(append(row, e.Detail)...)
	}
	return t.String()
}
