package compile

import (
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Known returns the findings that are computed at each change: those of reading, registering and compiling, and those
// that agents reported. They depend on the snapshot only, so those of a past snapshot can be computed again.
func (c *Compiled) Known() []finding.Finding {
	snap := c.Snapshot
	all := [][]finding.Finding{snap.Config.Findings, c.Findings}
	if snap.Registry != nil {
		all = append(all, snap.Registry.Clashes, reported(snap))
	}
	if c.Mesh != nil {
		all = append(all, silentNodes(snap, c.Mesh), c.unready())
	}
	return snap.Config.Report(all...)
}

// Report returns the findings to display: the known ones, and those computed only on request from the published mesh
// and its snapshot: unmatched names in policies, and imports and exports that cannot work.
func Report(known []finding.Finding, snap *snapshot.Snapshot, mesh *model.Mesh) []finding.Finding {
	return snap.Config.Report(known, findUnmatched(snap, mesh), findCrossing(snap, mesh))
}

// Report returns all findings about the snapshot.
func (c *Compiled) Report() []finding.Finding { return Report(c.Known(), c.Snapshot, c.Mesh) }
