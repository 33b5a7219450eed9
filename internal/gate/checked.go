package gate

import (
	"isthmus.dev/isthmus/internal/check"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
)

// checkObjects refuses objects that fail their kind's check. Files were already checked when they were read.
func checkObjects(_ *snapshot.Snapshot, change snapshot.Change, who Who, v *Verdict) {
	if who.AlreadyAdmitted || who.Source == snapshot.SourceFile {
		return
	}
	for k, o := range change.Edits() {
		if o == nil {
			continue
		}
		for _, f := range check.Object(o.Value) {
			v.add(f)
			if f.Severity == finding.Error {
				v.refuse(k)
			}
		}
	}
}
