package spine

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// endpointFindings say which nodes are silent, and which services nobody can be led to.
func endpointFindings(snap *snapshot.Snapshot, mesh *model.Mesh) []finding.Finding {
	var out []finding.Finding
	for _, n := range snap.SilentNodes {
		var on []string
		if p := mesh.Proxies[n.Name]; p != nil {
			for _, w := range slices.Concat(p.Workloads, p.Sidecars) {
				on = append(on, w.ID.String())
			}
		}
		if len(on) == 0 {
			continue
		}
		out = append(out, finding.Finding{
			Code: "ISM0300", Severity: finding.Warning, Object: "node " + n.Name,
			Message: fmt.Sprintf("silent since %s: what it serves (%s) is out of use wherever another endpoint is ready",
				n.Since.UTC().Format(time.RFC3339), firstFew(on)),
			Remedy: "see whether its host and agent run and reach the control plane; if it is gone for good, isthmus node revoke " + n.Name,
		})
	}
	for _, svc := range mesh.Services {
		for _, p := range svc.Ports {
			eps := mesh.Endpoints[model.EndpointSet{Host: svc.Host, Port: p.Number}]
			if len(eps) == 0 || slices.ContainsFunc(eps, func(e model.Endpoint) bool { return e.Healthy }) {
				continue
			}
			var by []string
			for _, e := range eps {
				if e.By != (model.WorkloadID{}) {
					by = append(by, e.By.String())
				}
			}
			out = append(out, finding.Finding{
				Code: "ISM0301", Severity: finding.Warning, Object: "Service " + svc.ID.Namespace + "/" + svc.ID.Name,
				Message: fmt.Sprintf("none of its %d endpoints at port %d is ready (%s), so every call fails", len(eps), p.Number, firstFew(by)),
				Remedy:  "see why their programs fail their readiness probes: isthmus endpoints shows them",
			})
		}
	}
	finding.Sort(out)
	return out
}

// firstFew are names for a sentence.
func firstFew(names []string) string {
	const few = 5
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}
