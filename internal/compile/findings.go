package compile

import (
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Known returns what is wrong with a snapshot as far as that is worked out at each change: what was found while
// reading, registering and compiling, and what agents reported. It follows from the snapshot alone, so that the
// findings of a past moment can be had again.
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

// Report returns findings as they are shown to whoever asks: the known ones, and what is worked out only then of the
// mesh in force and the snapshot that it was compiled from, that is, what policies name and nobody is, and which
// exports and imports cannot succeed.
func Report(known []finding.Finding, snap *snapshot.Snapshot, mesh *model.Mesh) []finding.Finding {
	return snap.Config.Report(known, findUnmatched(snap, mesh), findCrossing(snap, mesh))
}

// Report returns everything that is wrong with the snapshot.
func (c *Compiled) Report() []finding.Finding { return Report(c.Known(), c.Snapshot, c.Mesh) }
