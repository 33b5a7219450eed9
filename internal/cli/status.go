package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
)

func (a *app) statusCmd() *cobra.Command {
	var findings bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Proxies, and the configuration that they acknowledged",
		Example: `  isthmus status
  isthmus status --findings -o wide`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			resp, err := ask[adminapi.Empty, adminapi.StatusResponse](cmd.Context(), a, "Status", &adminapi.Empty{})
			if err != nil {
				return err
			}
			return a.print(resp, func(w when) string {
				if findings {
					return statusText(*resp, w) + "\n" + findingsText(resp.Findings, w.wide)
				}
				return statusText(*resp, w)
			})
		},
	}
	cmd.Flags().BoolVar(&findings, "findings", false, "list what is wrong with the configuration, too")
	return a.client(cmd)
}

func statusText(s adminapi.StatusResponse, w when) string {
	var b strings.Builder
	b.WriteString(facts(
		[2]string{"mesh", fmt.Sprintf("%s, trust domain %s", s.Mesh, s.TrustDomain)},
		[2]string{"control plane", fmt.Sprintf("isthmus %s, started %s", s.Version, w.past(s.Started))},
		[2]string{"configuration", fmt.Sprintf("%s in %s; %s", plural(s.Objects, "object"),
			plural(s.ConfigFiles, "file"), findingCount(s.Findings))},
		[2]string{"root", fmt.Sprintf("%s, ends %s", shortFingerprint(s.RootSHA256), w.future(s.RootNotAfter))},
	))
	b.WriteString("\n")
	if len(s.Proxies) == 0 {
		b.WriteString("No proxy has joined yet. Next: isthmus token create --node NAME --identity NAMESPACE/SERVICEACCOUNT\n")
		return b.String()
	}
	b.WriteString(proxiesTable(s.Proxies, w).String())
	if w.wide {
		b.WriteString("\n" + typesTable(s.Proxies, w).String())
	}
	for _, p := range s.Proxies {
		b.WriteString(containmentText(p, w))
		for _, ty := range p.Types {
			if ty.Nack != "" {
				fmt.Fprintf(&b, "\n‼ %s refused %s: %s\n  Next: isthmus proxy config %s --type %s\n",
					clean(p.Name, oneLine), ty.Type, clean(ty.Nack, oneLine), clean(p.Name, oneLine),
					strings.ToLower(ty.Type))
			}
		}
	}
	return b.String()
}

func proxiesTable(proxies []adminapi.ProxyStatus, w when) *table {
	if !w.wide {
		t := newTable("PROXY", "ROLE", "CONNECTED", "CONFIG", "ENVOY", "WORKLOADS")
		for _, p := range proxies {
			t.row(p.Name, string(p.Role), connected(p, w), configState(p.Types), envoyState(p.Envoy, w),
				fmt.Sprint(len(p.Workloads)))
		}
		return t
	}
	t := newTable("PROXY", "ROLE", "CONNECTED", "CONFIG", "LAG", "CERTIFICATES", "ENVOY", "WORKLOADS")
	for _, p := range proxies {
		t.row(p.Name, string(p.Role), connected(p, w), configState(p.Types), lag(p.Types, w.now), certLife(p.Certs, w),
			envoyState(p.Envoy, w), strings.Join(p.Workloads, " "))
	}
	return t
}

// containmentText shows what is withheld from a proxy and why.
func containmentText(p adminapi.ProxyStatus, w when) string {
	if p.Contained == nil {
		return ""
	}
	var b strings.Builder
	switch c := p.Contained; {
	case c.Held && c.Searching:
		fmt.Fprintf(&b, "\n‼ %s runs on its last good configuration while the cause is looked for: %s\n",
			clean(p.Name, oneLine), clean(c.Reason, oneLine))
	case c.Held:
		fmt.Fprintf(&b,
			"\n‼ %s runs on its last good configuration, without any change since: %s\n  Next: isthmus status --findings\n",
			clean(p.Name, oneLine), clean(c.Reason, oneLine))
	case c.Searching:
		fmt.Fprintf(&b, "\n‼ %s cannot run with its configuration, the cause is being looked for: %s\n",
			clean(p.Name, oneLine), clean(c.Reason, oneLine))
	}
	for _, q := range p.Contained.Quarantined {
		fmt.Fprintf(&b, "\n‼ %s lives without %s, in quarantine since %s: %s\n  Next: change or remove it\n",
			clean(p.Name, oneLine), clean(q.Object, oneLine), w.past(q.Since), clean(q.Reason, oneLine))
	}
	return b.String()
}

func typesTable(proxies []adminapi.ProxyStatus, w when) *table {
	t := newTable("PROXY", "TYPE", "RESOURCES", "SENT", "ACKNOWLEDGED", "SENT AT", "ACKNOWLEDGED AT")
	for _, p := range proxies {
		for _, ty := range p.Types {
			t.row(p.Name, ty.Type, fmt.Sprint(ty.Resources), ty.Sent, ty.Acked, w.past(ty.SentAt), w.past(ty.AckedAt))
		}
	}
	return t
}

func connected(p adminapi.ProxyStatus, w when) string {
	if !p.Connected && p.Since.IsZero() { // not since the control plane started
		return "no"
	}
	if !p.Connected {
		return "no, left " + w.past(p.Since)
	}
	return "since " + w.past(p.Since)
}

// configState returns "current", or lists the resource types that are rejected or behind.
func configState(types []adminapi.TypeStatus) string {
	var refused, behind []string
	for _, t := range types {
		switch {
		case t.Nack != "":
			refused = append(refused, t.Type)
		case t.Acked != t.Sent:
			behind = append(behind, t.Type)
		}
	}
	switch {
	case len(refused) > 0:
		return "refused " + strings.Join(refused, ",")
	case len(behind) > 0:
		return "behind " + strings.Join(behind, ",")
	case len(types) == 0:
		return "none"
	}
	return "current"
}

// lag returns how long the oldest unacknowledged change has waited, or how long the last change took.
func lag(types []adminapi.TypeStatus, now time.Time) string {
	var waiting, took time.Duration
	var last time.Time
	for _, t := range types {
		switch {
		case t.SentAt.IsZero():
		case t.Acked != t.Sent:
			waiting = max(waiting, now.Sub(t.SentAt), time.Millisecond)
		case !t.AckedAt.Before(t.SentAt) && t.SentAt.After(last):
			last, took = t.SentAt, t.AckedAt.Sub(t.SentAt)
		}
	}
	switch {
	case waiting > 0:
		return "waiting " + short(waiting)
	case last.IsZero():
		return "-"
	}
	return short(took)
}

func certLife(certs []agentapi.CertState, w when) string {
	if len(certs) == 0 {
		return "none"
	}
	first := slices.MinFunc(certs, func(a, b agentapi.CertState) int { return a.NotAfter.Compare(b.NotAfter) })
	if !first.NotAfter.After(w.now) {
		return fmt.Sprintf("%d, one %s", len(certs), w.future(first.NotAfter))
	}
	return fmt.Sprintf("%d, first ends %s", len(certs), w.future(first.NotAfter))
}

func envoyState(e agentapi.EnvoyState, w when) string {
	s := "up"
	if w.wide {
		s = strings.TrimSpace("up " + e.Version)
	}
	if !e.Running {
		s = "down"
	}
	if e.Restarts > 0 {
		s += ", " + plural(e.Restarts, "restart")
	}
	return s
}

func findingCount(fs []finding.Finding) string {
	var n [3]int
	for _, f := range fs {
		if f.Severity >= finding.Error && f.Severity <= finding.Info {
			n[f.Severity]++
		}
	}
	if n == [3]int{} {
		return "nothing to fix"
	}
	s := plural(n[finding.Error], "error") + ", " + plural(n[finding.Warning], "warning")
	return s + " (isthmus status --findings)"
}

// findingsText lists findings in order, with wide each on one line, for grep.
func findingsText(fs []finding.Finding, wide bool) string {
	if len(fs) == 0 {
		return "Nothing to fix.\n"
	}
	fs = slices.Clone(fs)
	finding.Sort(fs)
	var b strings.Builder
	for _, f := range fs {
		if wide {
			b.WriteString(clean(f.String(), oneLine) + "\n")
			continue
		}
		b.WriteString(findingText(f, ""))
	}
	return b.String()
}

// findingText returns a finding for people: its heading, below it the message and the remedy, wrapped.
func findingText(f finding.Finding, indent string) string {
	message := f.Message
	if f.Field != "" {
		message = f.Field + ": " + message
	}
	text := indent + clean(f.Heading(), oneLine) + "\n" + hang(message, indent+"  ")
	if f.Remedy != "" {
		text += hang("Fix: "+f.Remedy, indent+"  ")
	}
	return text
}

// hang returns a text with each of its lines indented.
func hang(text, indent string) string {
	lines := wrap(clean(text, oneLine), helpWidth-len(indent))
	return indent + strings.ReplaceAll(lines, "\n", "\n"+indent) + "\n"
}

// shortFingerprint returns the first digits of a fingerprint, enough to tell two apart.
func shortFingerprint(hex string) string {
	if len(hex) <= 16 {
		return hex
	}
	return hex[:16] + "…"
}
