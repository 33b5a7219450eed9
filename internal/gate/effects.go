package gate

import (
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Effects are the findings that a change brings about: those of the mesh with it that are not there without the objects
// that it names. What the gate says of it is not among them.
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

// findings are those of compiling, and of those who ask.
func findings(snap *snapshot.Snapshot) []finding.Finding {
	mesh, all := compile.Mesh(snap)
	if mesh == nil {
		return all
	}
	return append(all, compile.Crossing(snap, mesh)...)
}
