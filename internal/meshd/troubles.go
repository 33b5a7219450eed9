package meshd

import (
	"cmp"
	"slices"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
)

// troubles are a node's workloads that it does not serve, as findings; it can speak of its own workloads only.
func troubles(node string, r *agentapi.Report) []finding.Finding {
	var out []finding.Finding
	for _, t := range r.Troubles {
		own := func(w snapshot.Workload) bool { return w.Namespace+"/"+w.Name == t.Workload }
		if !slices.ContainsFunc(r.Workloads, own) {
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
	slices.SortFunc(out, func(a, b finding.Finding) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Message, b.Message))
	})
	return out
}
