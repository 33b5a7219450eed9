package gate

import (
	"slices"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Effects returns the findings that a change causes: those of the mesh with the change that do not exist without the
// objects that it names. Findings of the gate itself are not among them.
func Effects(now *snapshot.Snapshot, change snapshot.Change) []finding.Finding {
	var without snapshot.Change
	for k := range change.Edits() {
		without.Remove(k)
	}
	known := map[finding.Finding]bool{}
	for _, f := range reportOn(now, without) {
		known[f] = true
	}
	return slices.DeleteFunc(reportOn(now, change), func(f finding.Finding) bool {
		double := known[f]
		known[f] = true
		return double
	})
}

// reportOn returns the findings after a change.
func reportOn(now *snapshot.Snapshot, change snapshot.Change) []finding.Finding {
	next := *now
	next.Config = now.Config.With(change)
	return compile.Next(nil, &next).Report()
}
