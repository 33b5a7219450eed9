package gate

import (
	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// keepMesh keeps the Mesh of a running mesh if a change would remove it or change its trust domain.
func keepMesh(now *snapshot.Snapshot, change snapshot.Change, _ Who, v *Verdict) {
	old := now.Config.Mesh()
	if old == nil {
		return
	}
	is := snapshot.KeyOf(old)
	var touched []snapshot.Key
	var next, gone *snapshot.Object
	for k, o := range change.Edits() {
		switch {
		case k.Kind != is.Kind:
			continue
		case o != nil:
			next = o
		case k == is:
			gone = now.Config.Objects.Get(k)
		}
		touched = append(touched, k)
	}
	f := finding.New("ISM0004", kind.Key{Kind: is.Kind}, "",
		"the Mesh object is gone; the last one stays in effect")
	switch {
	case next == nil && gone == nil:
		return
	case next != nil && next.Value.(*v1alpha1.Mesh).Spec.TrustDomain == old.Spec.TrustDomain:
		return
	case next != nil:
		f = finding.New("ISM0005", kind.Key{Kind: is.Kind}, "spec.trustDomain",
			"the trust domain of a running mesh cannot change, since every identity begins with it; the last Mesh "+
				"stays in effect")
		f = f.At(next.Origin.File, next.Origin.LineOf(f.Field))
	}
	for _, k := range touched {
		v.refuse(k)
	}
	v.add(f)
}
