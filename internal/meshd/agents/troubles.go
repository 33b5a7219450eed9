package agents

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
)

// troubles are a node's workloads that it does not serve, and what of the others passes the mesh by, as findings; who names
// the workload at an address; it can speak of its own workloads only.
func troubles(node string, r *agentapi.Report, who func(netip.Addr) string) []finding.Finding {
	var out []finding.Finding
	hosts := make(map[string]bool, len(r.Workloads))
	for _, w := range r.Workloads {
		hosts[w.Namespace+"/"+w.Name] = true
	}
	for _, t := range r.Troubles {
		if !hosts[t.Workload] {
			continue
		}
		f := finding.Finding{
			Code: "ISM0280", Severity: finding.Error, Object: "Workload " + t.Workload,
			Message: "node " + node + " does not serve it: " + t.Reason,
			Remedy:  "mend that on the node's host; the node tries again by itself, and serves its other workloads meanwhile",
		}
		if t.Absent {
			f.Code, f.Severity = "ISM0281", finding.Info
			f.Remedy = "start the workload; the node notices by itself"
		}
		out = append(out, f)
	}
	out = append(out, outside(node, r, hosts, who)...)
	slices.SortFunc(out, func(a, b finding.Finding) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
	})
	return out
}

// outside is what of a node's workloads passes the mesh by, as findings.
func outside(node string, r *agentapi.Report, hosts map[string]bool, who func(netip.Addr) string) []finding.Finding {
	var out []finding.Finding
	for _, o := range r.Outside {
		if !hosts[o.Workload] {
			continue
		}
		if o.Count > 0 && len(o.Connections) > 0 {
			out = append(out, finding.Finding{
				Code: "ISM0340", Severity: finding.Warning, Object: "Workload " + o.Workload,
				Message: fmt.Sprintf("%d connections that were open before node %s captured it go on outside the mesh: %s",
					o.Count, node, some(o.Connections, o.Count)),
				Remedy: "restart the program: what it opens from then on is captured; in STRICT mode they end at once",
			})
		}
		if o.PlaintextCount > 0 && len(o.Plaintext) > 0 {
			out = append(out, finding.Finding{
				Code: "ISM0342", Severity: finding.Info, Object: "Workload " + o.Workload,
				Message: "it takes plaintext, which STRICT would refuse, from " + some(named(o.Plaintext, who), o.PlaintextCount),
				Remedy:  "bring the callers into the mesh, and let its workloads call the Service's name, no address; once nobody has been named for an hour, nothing speaks against STRICT",
			})
		}
		if len(o.Ports) > 0 {
			out = append(out, finding.Finding{
				Code: "ISM0341", Severity: finding.Info, Object: "Workload " + o.Workload,
				Message: fmt.Sprintf("node %s excludes its ports %s from capture: whoever reaches its address may call them, "+
					"in plaintext and whatever policies say", node, strings.Trim(fmt.Sprint(o.Ports), "[]")),
				Remedy: "if that is not meant, take them out of excludeInboundPorts in the node's settings",
			})
		}
	}
	return out
}

// some of several, and how many more there are.
func some(shown []string, count int) string {
	text := strings.Join(shown, ", ")
	if more := count - len(shown); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// named are addresses, with whose they are as far as that is known.
func named(addrs []string, who func(netip.Addr) string) []string {
	var out []string
	for _, text := range addrs {
		if a, err := netip.ParseAddr(text); err == nil {
			if workload := who(a); workload != "" {
				text += " (workload " + workload + ")"
			}
		}
		out = append(out, text)
	}
	return out
}
