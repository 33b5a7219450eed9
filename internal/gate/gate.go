// Package gate decides which parts of a configuration change are admitted. All changes pass it: the folder, peerings by
// token, drafts, and dry runs.
package gate

import (
	"slices"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Who is the origin of a change.
type Who struct {
	// Source is where the objects come from.
	Source snapshot.Source
	// Caller is the name under which the caller is recorded; empty if unknown, as for the folder.
	Caller string
	// AlreadyAdmitted means that the objects are read back from the state. What was promised to a peer then stays in
	// force, even if a new object like it would be refused.
	AlreadyAdmitted bool
}

// Verdict is the outcome of a review.
type Verdict struct {
	// Refused lists the objects that the change does not affect, sorted: each stays as it was, or stays out.
	Refused []snapshot.Key
	// Findings say why objects are refused, and warn about those that are not.
	Findings []finding.Finding
}

// rule checks one thing that a change must not do.
type rule func(*snapshot.Snapshot, snapshot.Change, Who, *Verdict)

// rules in the order of their evaluation. Each sees the whole change.
var rules = []rule{checkObjects, keepMesh, keepPeerings}

// Review judges a change of the current state. It is pure.
func Review(now *snapshot.Snapshot, change snapshot.Change, who Who) Verdict {
	var v Verdict
	for _, ask := range rules {
		ask(now, change, who, &v)
	}
	slices.SortFunc(v.Refused, snapshot.Key.Compare)
	v.Refused = slices.Compact(v.Refused)
	return v
}

// refuse keeps the change from affecting an object.
func (v *Verdict) refuse(k snapshot.Key) { v.Refused = append(v.Refused, k) }

func (v *Verdict) add(f finding.Finding) { v.Findings = append(v.Findings, f) }

// Refuses reports whether an object is refused.
func (v Verdict) Refuses(k snapshot.Key) bool {
	_, found := slices.BinarySearchFunc(v.Refused, k, snapshot.Key.Compare)
	return found
}

// Admit returns the next configuration without the refused changes, and with the verdict's findings among its own.
func (v Verdict) Admit(now, next *snapshot.Config) *snapshot.Config {
	if len(v.Refused)+len(v.Findings) == 0 {
		return next
	}
	var back snapshot.Change
	for _, k := range v.Refused {
		if o := now.Objects.Get(k); o != nil {
			back.Put(o)
		} else {
			back.Remove(k)
		}
	}
	out := next.With(back)
	out.Findings = slices.Concat(next.Findings, v.Findings)
	return out
}
