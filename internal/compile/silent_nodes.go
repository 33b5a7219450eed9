package compile

import (
	"fmt"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// silentNodes reports silent nodes that serve something.
func silentNodes(snap *snapshot.Snapshot, mesh *model.Mesh) []finding.Finding {
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
		out = append(out, finding.New("ISM0300", kind.Node(n.Name), "",
			fmt.Sprintf("silent since %s: what it serves (%s) is out of use wherever another endpoint is ready",
				n.Since.UTC().Format(time.RFC3339), finding.Abbreviate(on)),
			"see whether its host and agent run and reach the control plane; if it is gone for good, isthmus node revoke "+n.Name))
	}
	return out
}
