package gate

import (
	"isthmus.dev/isthmus/internal/check"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
)

// objectsAreChecked refuses what the check of its kind refuses. Files were checked when they were read.
func objectsAreChecked(_ *snapshot.Snapshot, change snapshot.Change, who Who, v *Verdict) {
	if who.LetInBefore || who.Source == snapshot.SourceFile {
		return
	}
	for k, o := range change.Edits() {
		if o == nil {
			continue
		}
		for _, f := range check.Object(o.Value) {
			v.say(f)
			if f.Severity == finding.Error {
				v.refuse(k)
			}
		}
	}
}
