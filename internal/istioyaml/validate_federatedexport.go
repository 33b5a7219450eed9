package istioyaml

import (
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func checkFederatedExport(r *report, o *v1alpha1.FederatedExport, doc map[string]any) {
	for i, to := range o.Spec.To {
		path := fmt.Sprintf("spec.to[%d]", i)
		if !isLabel(to.Peer) {
			r.refuse(CodeInvalid, path+".peer", fmt.Sprintf("%q cannot be the name of a MeshPeer", clip(to.Peer)), "write metadata.name of the MeshPeer")
		}
		if slices.ContainsFunc(o.Spec.To[:i], func(x v1alpha1.ExportTo) bool { return x.Peer == to.Peer }) {
			r.refuse(CodeInvalid, path+".peer", fmt.Sprintf("the peer %q is written twice", clip(to.Peer)), "put all of its rules into one item")
		}
		for j, rule := range to.Rules {
			r.exportRule(fmt.Sprintf("%s.rules[%d]", path, j), rule)
		}
	}
	spec, _ := doc["spec"].(map[string]any)
	to, _ := spec["to"].([]any)
	for i := range to {
		m, _ := to[i].(map[string]any)
		r.writtenEmpty(fmt.Sprintf("spec.to[%d].rules", i), m["rules"])
	}
}

func (r *report) exportRule(path string, rule v1alpha1.ExportRule) {
	for i, c := range rule.Callers {
		at := fmt.Sprintf("%s.callers[%d]", path, i)
		rest, ok := strings.CutPrefix(c, "spiffe://")
		if !ok || rest == "" || strings.Contains(strings.TrimSuffix(rest, "*"), "*") {
			r.refuse(CodeInvalid, at, fmt.Sprintf("%q is not a caller", clip(c)), "write a SPIFFE ID such as spiffe://retail.example/ns/shop/sa/storefront, with one * at the end at most")
		} else if td, _, slash := strings.Cut(rest, "/"); !slash || strings.Contains(td, "*") {
			r.refuse(CodeInvalid, at, fmt.Sprintf("%q does not name one trust domain", clip(c)), "write the whole trust domain and a slash before any *, for example spiffe://retail.example/ns/shop/*")
		}
	}
}
