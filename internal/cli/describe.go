package cli

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/finding"
)

func (a *app) describeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "describe WORKLOAD|HOST",
		Short: "All about one workload or service: ports, policies, callers",
		Example: `  isthmus describe default/payments
  isthmus describe payments.default.svc.cluster.local`,
		Args: oneArg("a workload, NAMESPACE/NAME, or a service's host"),
		RunE: func(cmd *cobra.Command, args []string) error {
			inv, err := a.inventory(cmd.Context())
			if err != nil {
				return err
			}
			st, err := ask[adminapi.Empty, adminapi.StatusResponse](cmd.Context(), a, "Status", &adminapi.Empty{})
			if err != nil {
				return err
			}
			access, err := ask[adminapi.Empty, adminapi.AccessResponse](cmd.Context(), a, "Access", &adminapi.Empty{})
			if err != nil {
				return err
			}
			d, err := describe(*inv, access.Edges, st.Findings, args[0])
			if err != nil {
				return err
			}
			return a.print(d, func(when) string { return descriptionText(d) })
		},
	}
	cmd.ValidArgsFunction = a.completion(a.workloadsAndHosts)
	return a.client(cmd)
}

// description is what is known of a workload, a service, or both if the name fits both.
type description struct {
	Workload *adminapi.WorkloadInfo `json:"workload,omitempty"`
	// Callers are the workloads and callers at peers that may call it, with the policies that allow them.
	Callers  []adminapi.AccessEdge `json:"callers"`
	Service  *adminapi.ServiceInfo `json:"service,omitempty"`
	Findings []finding.Finding     `json:"findings"`
}

// describe looks NAMESPACE/NAME up as a workload first, and any other name as a service first. It also accepts a name
// with a port, as callers write it, and a workload's address.
func describe(
	inv adminapi.InventoryResponse, edges []adminapi.AccessEdge, findings []finding.Finding, name string,
) (description, error) {
	var d description
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	if i := slices.IndexFunc(inv.Workloads,
		func(w adminapi.WorkloadInfo) bool { return slices.Contains(w.Addresses, name) }); i >= 0 {
		name = inv.Workloads[i].Key()
	}
	if w, err := findWorkload(inv.Workloads, name); err == nil {
		d.Workload = &w
	}
	if d.Workload == nil || !strings.Contains(name, "/") {
		host, err := findHost(inv.Services, name)
		if err != nil && d.Workload == nil {
			return d, cmp.Or(suggestWorkload(inv, name), err)
		}
		if err == nil {
			i := slices.IndexFunc(inv.Services, func(s adminapi.ServiceInfo) bool { return s.Host == host })
			d.Service, d.Workload = &inv.Services[i], nil
		}
	}
	objects := []string{}
	hosts := []string{}
	if d.Workload != nil {
		objects = append(objects, d.Workload.Key())
		for _, p := range d.Workload.Ports {
			objects = append(objects, policyKeys(p.Policies)...)
			for _, h := range p.Hosts {
				hosts = append(hosts, fmt.Sprintf("%s:", h))
			}
		}
	}
	if d.Service != nil {
		objects = append(objects, d.Service.Namespace+"/"+d.Service.Name)
		hosts = append(hosts, d.Service.Host+":")
	}
	for _, e := range edges {
		if slices.ContainsFunc(hosts, func(h string) bool { return strings.HasPrefix(e.To, h) }) {
			d.Callers = append(d.Callers, e)
		}
	}
	for _, f := range findings {
		about := f.Object.String()
		if slices.ContainsFunc(objects, func(o string) bool { return strings.HasSuffix(about, " "+o) || about == o }) {
			d.Findings = append(d.Findings, f)
		}
	}
	return d, nil
}

// suggestWorkload returns an error for a name that looks like a workload's but is unknown, else nil.
func suggestWorkload(inv adminapi.InventoryResponse, name string) error {
	if !strings.Contains(name, "/") {
		return nil
	}
	_, err := findWorkload(inv.Workloads, name)
	return err
}

// policyKeys extracts namespace/name from entries like "DENY AuthorizationPolicy default/x (file:line)".
func policyKeys(policies []string) []string {
	var out []string
	for _, p := range policies {
		if parts := strings.Fields(p); len(parts) > 2 {
			out = append(out, parts[2])
		}
	}
	return out
}

func descriptionText(d description) string {
	var b strings.Builder
	if d.Workload != nil {
		b.WriteString(workloadText(*d.Workload))
	}
	if d.Service != nil {
		b.WriteString(serviceText(*d.Service))
	}
	b.WriteString("\nMay call it:\n")
	if len(d.Callers) == 0 {
		b.WriteString("  nobody" + firstObstacle(d) + "\n")
	}
	for _, e := range d.Callers {
		fmt.Fprintf(&b, "  %s → %s\n", clean(e.From, oneLine), clean(e.To, oneLine))
		for _, by := range e.By {
			fmt.Fprintf(&b, "    by %s\n", clean(by, oneLine))
		}
	}
	if d.Workload != nil {
		b.WriteString("\nIt may call:\n")
		if len(d.Workload.Calls) == 0 {
			b.WriteString("  nothing\n")
		}
		for _, e := range d.Workload.Calls {
			fmt.Fprintf(&b, "  %s\n", clean(e.To, oneLine))
		}
	}
	b.WriteString("\nFindings:\n")
	if len(d.Findings) == 0 {
		b.WriteString("  none\n")
	}
	for _, f := range d.Findings {
		b.WriteString(findingText(f, "  "))
	}
	return b.String()
}

// firstObstacle returns the first missing thing if nobody may call.
func firstObstacle(d description) string {
	switch {
	case d.Service == nil && len(d.Workload.Ports) == 0:
		return ": no Service selects it"
	case d.Service == nil:
		return ": no AuthorizationPolicy that selects it allows a caller, or Sidecars hide it"
	case d.Service.External || imported(*d.Service):
		return ""
	case !slices.ContainsFunc(d.Service.Ports, func(p adminapi.ServicePort) bool { return len(p.Endpoints) > 0 }):
		return ": no workload serves it"
	}
	return ": no AuthorizationPolicy of the workloads behind it allows a caller, or Sidecars hide it"
}

func workloadText(w adminapi.WorkloadInfo) string {
	var b strings.Builder
	b.WriteString(facts(
		[2]string{"workload", w.Key() + ", " + readiness(w.Ready, w.Silent)},
		[2]string{"identity", w.Identity},
		[2]string{"node", cmp.Or(w.Node, "none")},
		[2]string{"addresses", cmp.Or(strings.Join(w.Addresses, " "), "none")},
		[2]string{"labels", cmp.Or(strings.Join(w.Labels, " "), "none")},
	))
	b.WriteString("\nPorts:\n")
	if len(w.Ports) == 0 {
		fmt.Fprintf(&b, "  none: no Service selects it (mutual TLS elsewhere: %s)\n", w.Mode)
	}
	for _, p := range w.Ports {
		fmt.Fprintf(&b, "  %d/%s, mutual TLS %s\n", p.Number, p.Protocol, p.Mode)
		if len(p.Hosts) > 0 {
			fmt.Fprintf(&b, "    called as %s\n", clean(strings.Join(p.Hosts, " "), oneLine))
		}
		for _, policy := range p.Policies {
			fmt.Fprintf(&b, "    %s\n", clean(policy, oneLine))
		}
		if !slices.ContainsFunc(p.Policies, func(s string) bool { return strings.HasPrefix(s, "ALLOW ") }) {
			fmt.Fprintf(&b, "    no ALLOW policy selects it: the mesh's default is %s\n", p.Default)
		}
	}
	return b.String()
}

func serviceText(s adminapi.ServiceInfo) string {
	visible := "every namespace"
	if len(s.ExportTo) > 0 {
		visible = strings.Join(s.ExportTo, " ")
	}
	var b strings.Builder
	b.WriteString(facts(
		[2]string{"service", s.Host},
		[2]string{"addresses", cmp.Or(strings.Join(s.Addresses, " "), "none")},
		[2]string{"seen by", visible},
		[2]string{"from", strings.Join(s.From, ", ")},
	))
	for _, p := range s.Ports {
		fmt.Fprintf(&b, "\nPort %d/%s, %s:\n", p.Number, p.Protocol, served(s, p, " ready"))
		for _, e := range p.Endpoints {
			fmt.Fprintf(&b, "  %s  %s  %s\n", clean(e.Address, oneLine), readiness(e.Ready, e.Silent),
				clean(cmp.Or(e.Workload, "-"), oneLine))
		}
		for _, peer := range p.Peers {
			fmt.Fprintf(&b, "  peer %s, weight %d, priority %d, as %s\n", clean(peer.Peer, oneLine), peer.Weight,
				peer.Priority, clean(peer.Name, oneLine))
			if peer.Unready != "" {
				fmt.Fprintf(&b, "    not ready: %s\n", clean(peer.Unready, oneLine))
			}
		}
	}
	return b.String()
}
