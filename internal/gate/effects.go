package gate

import (
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
	known := map[string]bool{}
	for _, f := range findings(changed(now, without)) {
		known[f.String()] = true
	}
	var out []finding.Finding
	for _, f := range findings(changed(now, change)) {
		if text := f.String(); !known[text] {
			known[text] = true
			out = append(out, f)
		}
	}
	finding.Sort(out)
	return out
}

func changed(now *snapshot.Snapshot, change snapshot.Change) *snapshot.Snapshot {
	next := *now
	next.Config = now.Config.With(change)
	return &next
}

// findings returns those of the compiler and of the peer rules.
func findings(snap *snapshot.Snapshot) []finding.Finding {
	mesh, all := compile.Mesh(snap)
	if mesh == nil {
		return all
	}
	return append(all, compile.Crossing(snap, mesh)...)
}
