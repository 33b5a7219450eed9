// Package gate decides what of a change of the configuration is let in. It is the one answer for every door by which
// changes come: the folder, peerings made by token, drafts, and whoever only asks what would become of one.
package gate

import (
	"slices"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Who asks for a change.
type Who struct {
	// Source is the way by which its objects come.
	Source snapshot.Source
	// Caller is who it is, as the record of events names callers; empty where that is not known, as of the folder.
	Caller string
	// LetInBefore says that the objects come from where they are kept since they were let in: what was promised to a
	// peer stands, also where an object like it would be refused now.
	LetInBefore bool
}

// Verdict is what becomes of a change.
type Verdict struct {
	// Refused are the objects that the change has no effect on, sorted: each stays as it was, or stays out.
	Refused []snapshot.Key
	// Findings say why objects are refused, and what to mind about those that are not.
	Findings []finding.Finding
}

// rule is one thing that a change must not do.
type rule func(*snapshot.Snapshot, snapshot.Change, Who, *Verdict)

// rules in the order in which they are asked. Each hears of the whole change.
var rules = []rule{objectsAreChecked, meshStays, peersKeepTheirNames}

// Review judges a change of what is in force. Nothing is written, and the same question has the same answer.
func Review(now *snapshot.Snapshot, change snapshot.Change, who Who) Verdict {
	var v Verdict
	for _, ask := range rules {
		ask(now, change, who, &v)
	}
	slices.SortFunc(v.Refused, snapshot.Key.Compare)
	v.Refused = slices.Compact(v.Refused)
	return v
}

// refuse has a change no effect on an object.
func (v *Verdict) refuse(k snapshot.Key) { v.Refused = append(v.Refused, k) }

func (v *Verdict) say(f finding.Finding) { v.Findings = append(v.Findings, f) }

// Refuses says whether an object is refused.
func (v Verdict) Refuses(k snapshot.Key) bool {
	_, found := slices.BinarySearchFunc(v.Refused, k, snapshot.Key.Compare)
	return found
}

// Admit is the next configuration as far as it is let in: what is refused is as it is now, and Findings are among its
// own.
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
