package check

import (
	"cmp"
	"fmt"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
)

func federatedImport(r *report, o *v1alpha1.FederatedImport) {
	type source struct{ peer, namespace, name string }
	seen := map[source]bool{}
	weight := int32(0)
	r.ownPort("spec.port", int64(o.Spec.Port))
	for i, f := range o.Spec.From {
		path := fmt.Sprintf("spec.from[%d]", i)
		if !isLabel(f.Peer) {
			r.find(finding.Invalid, path+".peer",
				fmt.Sprintf("%q cannot be the name of a MeshPeer", finding.Clip(f.Peer)),
				"write metadata.name of the MeshPeer")
		}
		s := source{f.Peer, cmp.Or(f.Namespace, o.Namespace), cmp.Or(f.Name, o.Name)}
		if seen[s] {
			r.find(finding.Invalid, path,
				fmt.Sprintf("%s/%s of the peer %q is written twice", s.namespace, s.name, finding.Clip(f.Peer)),
				"keep one of the two; its share is set by weight")
		}
		seen[s] = true
		weight += weightOf(f.Weight)
	}
	if o.Spec.Local != nil {
		weight += weightOf(o.Spec.Local.Weight)
	}
	if weight == 0 && len(o.Spec.From) > 0 {
		r.find(finding.Invalid, "spec.from[0].weight",
			"every source has weight 0, so none would be called",
			"give one of them a weight")
	}
}

func weightOf(w *int32) int32 {
	if w == nil {
		return 1
	}
	return *w
}
