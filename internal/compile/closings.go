package compile

import (
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// maxReportedClosed bounds the findings about what is closed.
const maxReportedClosed = 1_000

// closing keeps everybody from the workloads that an object selects which is not carried out.
type closing struct {
	workload string // the one that it is about; empty for all that labels select
	labels   map[string]string
	policy   *model.Policy // denies all
}

// closes says whether an object that is not carried out closes anything: a policy what it selects, a WorkloadEntry the
// workload that it declares. Which labels that has is the entry's word, and without them no policy is known to select
// it.
func closes(kindName string) bool { return kind.Closes(kindName) || kindName == "WorkloadEntry" }

// closings reads which workloads are closed: policies adds the refusal, modesOf demands mutual TLS.
func closings(c *compiler) {
	for _, o := range c.cfg.Closed {
		c.shut(o)
	}
}

func (c *compiler) shut(o snapshot.Closed) {
	if !closes(o.Key.Kind) {
		return
	}
	clear(c.modes) // they may be other ones now
	namespace, workload := o.Key.Namespace, ""
	switch {
	case o.Key.Kind == "WorkloadEntry":
		workload = o.Key.Name
	case namespace == c.mesh.RootNamespace:
		namespace = ""
	}
	scope := closedScope(namespace, workload, o.Selector)
	if c.closed == nil {
		c.closed, c.closedScopes = map[string][]closing{}, map[string]bool{}
	}
	if c.closedScopes[scope] {
		return // a thousand of them refuse no more than one does
	}
	c.closedScopes[scope] = true
	c.closed[namespace] = append(c.closed[namespace], closing{workload: workload, labels: o.Selector, policy: &model.Policy{
		Name: model.ClosedPrefix + strings.ReplaceAll(describe(o.Key), " ", "-"), Ref: at(describe(o.Key), o.Origin),
		Action: model.Deny, Rules: []model.Rule{{}},
	}})
}

// closedScope is equal for closings of the same workloads.
func closedScope(namespace, workload string, selector map[string]string) string {
	scope := namespace + "\x00" + workload
	for _, k := range sortedKeys(selector) {
		scope += "\x00" + k + "=" + selector[k]
	}
	return scope
}

// reportClosed says loudly what is written and not in force.
func (c *compiler) reportClosed() {
	for n, o := range c.cfg.Closed {
		if n == maxReportedClosed {
			c.findings = append(c.findings, finding.Finding{
				Code: "ISM0207", Severity: finding.Error, Remedy: "mend those that are named first",
				Message: fmt.Sprintf("%d more objects are not in force", len(c.cfg.Closed)-n),
			})
			break
		}
		message := "is not in force, as if it were not written: " + o.Reason
		if closes(o.Key.Kind) {
			message = "is not in force, so nobody may call " + scope(o, c.mesh.RootNamespace) + ": " + o.Reason
		}
		f := finding.Finding{
			Code: "ISM0201", Severity: finding.Error, File: o.Origin.File, Line: o.Origin.Line, Message: message,
			Remedy: "mend it, or remove it to do without it",
		}
		if o.Key.Kind != "" {
			f.Object = describe(o.Key)
		}
		c.findings = append(c.findings, f)
	}
}

// scope says what a closed object closes.
func scope(o snapshot.Closed, root string) string {
	if o.Key.Kind == "WorkloadEntry" {
		return "workload " + o.Key.Namespace + "/" + o.Key.Name
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

// describe names an object whose kind or name may not be known.
func describe(k snapshot.Key) string {
	switch {
	case k.Kind == "":
		return "a document that cannot be read"
	case k.Name == "":
		return k.Kind
	}
	return k.String()
}

// isClosed says whether a workload is closed by its own WorkloadEntry.
func (c *compiler) isClosed(id model.WorkloadID) bool {
	return slices.ContainsFunc(c.closed[id.Namespace], func(cl closing) bool { return cl.workload == id.Name })
}

// closedBy are the refusals that close an instance.
func (c *compiler) closedBy(i *instance) []*model.Policy {
	var out []*model.Policy
	for _, namespace := range []string{"", i.namespace} {
		for _, cl := range c.closed[namespace] {
			if (cl.workload == "" || cl.workload == i.name) && i.selectedBy(cl.labels) {
				out = append(out, cl.policy)
			}
		}
	}
	return out
}
