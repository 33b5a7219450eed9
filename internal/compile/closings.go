package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// maxReportedClosed limits the findings about closed objects.
const maxReportedClosed = 1_000

// closing denies all calls to the workloads selected by an object that is not in effect.
type closing struct {
	workload string // the one concerned; empty for those that the labels select
	labels   map[string]string
	policy   *model.Policy // denies everything
}

// shut closes what an object selects that is written but not in effect. policiesOf adds the denial; modesOf requires
// mutual TLS.
func (u *unit) shut(o snapshot.Closed) {
	namespace, workload := o.Key.Namespace, ""
	switch closes := kind.ClosedBy(o.Key); {
	case closes == kind.Nothing:
		return
	case closes == kind.Declared:
		workload = o.Key.Name
	case namespace == u.mesh.rootNamespace:
		namespace = ""
	}
	u.close(namespace, closing{workload: workload, labels: o.Selector, policy: &model.Policy{
		Name: model.ClosedPrefix + strings.ReplaceAll(describe(o.Key), " ", "-"), Ref: at(describe(o.Key), o.Origin),
		Action: model.Deny, Rules: []model.Rule{{}},
	}})
}

// close adds a closing, at most one per scope, since more would not deny more.
func (u *unit) close(namespace string, cl closing) {
	scope := closedScope(namespace, cl.workload, cl.labels)
	if !u.scopes[scope] {
		u.scopes[scope] = true
		u.closings[namespace] = append(u.closings[namespace], cl)
	}
}

// closedScope returns a key that is equal for closings of the same workloads.
func closedScope(namespace, workload string, selector map[string]string) string {
	scope := namespace + "\x00" + workload
	for _, k := range sortedKeys(selector) {
		scope += "\x00" + k + "=" + selector[k]
	}
	return scope
}

// reportClosed reports objects that are written but not in effect.
func reportClosed(closed []snapshot.Closed, root string) (out []finding.Finding) {
	for n, o := range closed {
		if n == maxReportedClosed {
			return append(out, finding.New("ISM0207", kind.Key{}, "",
				fmt.Sprintf("%d more objects are not in force", len(closed)-n)))
		}
		message := "is not in force, as if it were not written: " + o.Reason
		if kind.ClosedBy(o.Key) != kind.Nothing {
			message = "is not in force, so nobody may call " + scope(o, root) + ": " + o.Reason
		}
		out = append(out, finding.New("ISM0201", o.Key.Normal(), "", message).At(o.Origin.File, o.Origin.Line))
	}
	return out
}

// scope describes what a closed object closes.
func scope(o snapshot.Closed, root string) string {
	if kind.ClosedBy(o.Key) == kind.Declared {
		return kind.Workload(o.Key.Namespace, o.Key.Name).String()
	}
	where := "in namespace " + o.Key.Namespace
	if o.Key.Namespace == "" || o.Key.Namespace == root {
		where = "in the mesh"
	}
	if len(o.Selector) == 0 {
		return "any workload " + where
	}
	var labels []string
	for _, k := range sortedKeys(o.Selector) {
		labels = append(labels, k+"="+o.Selector[k])
	}
	return "the workloads with " + strings.Join(labels, ",") + " " + where
}

// describe names an object whose kind or name may be unknown.
func describe(k snapshot.Key) string {
	return cmp.Or(k.Normal().String(), "a document that cannot be read")
}

// isClosed reports whether a workload is closed by its own WorkloadEntry.
func (u *unit) isClosed(name string) bool {
	return slices.ContainsFunc(u.closings[u.namespace], func(cl closing) bool { return cl.workload == name })
}

// closedBy returns the denials that close an instance.
func (u *unit) closedBy(i *instance) []*model.Policy {
	var out []*model.Policy
	for _, namespace := range []string{"", u.namespace} {
		for _, cl := range u.closings[namespace] {
			if (cl.workload == "" || cl.workload == i.name) && i.selectedBy(cl.labels) {
				out = append(out, cl.policy)
			}
		}
	}
	return out
}
