package check

import (
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
)

func federatedExport(r *report, o *v1alpha1.FederatedExport) {
	for i, to := range o.Spec.To {
		path := fmt.Sprintf("spec.to[%d]", i)
		if !isLabel(to.Peer) {
			r.find(finding.Invalid, path+".peer",
				fmt.Sprintf("%q cannot be the name of a MeshPeer", finding.Clip(to.Peer)),
				"write metadata.name of the MeshPeer")
		}
		if slices.ContainsFunc(o.Spec.To[:i], func(x v1alpha1.ExportTo) bool { return x.Peer == to.Peer }) {
			r.find(finding.Invalid, path+".peer",
				fmt.Sprintf("the peer %q is written twice", finding.Clip(to.Peer)),
				"put all of its rules into one item")
		}
		for j, rule := range to.Rules {
			r.exportRule(fmt.Sprintf("%s.rules[%d]", path, j), rule)
		}
	}
}

func (r *report) exportRule(path string, rule v1alpha1.ExportRule) {
	for _, f := range []struct {
		name string
		list []string
	}{{"callers", rule.Callers}, {"methods", rule.Methods}, {"paths", rule.Paths}} {
		if f.list != nil && len(f.list) == 0 {
			r.find(finding.Invalid, path+"."+f.name, "an empty list restricts nothing",
				"write what it should hold, or remove it to mean anything")
		}
	}
	for i, c := range rule.Callers {
		at := fmt.Sprintf("%s.callers[%d]", path, i)
		rest, ok := strings.CutPrefix(c, "spiffe://")
		if !ok || rest == "" || strings.Contains(strings.TrimSuffix(rest, "*"), "*") {
			r.find(finding.Invalid, at,
				fmt.Sprintf("%q is not a caller", finding.Clip(c)),
				"write a SPIFFE ID such as spiffe://retail.example/ns/shop/sa/storefront, with one * at the end at most")
		} else if td, _, slash := strings.Cut(rest, "/"); !slash || strings.Contains(td, "*") {
			r.find(finding.Invalid, at,
				fmt.Sprintf("%q does not name one trust domain", finding.Clip(c)),
				"write the whole trust domain and a slash before any *, for example spiffe://retail.example/ns/shop/*")
		}
	}
}
