package compile

import (
	"strings"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// closedPrefix begins the name of a refusal that closes, as records show it.
const closedPrefix = "closed-by-"

// closing keeps everybody from the workloads that an object selects which is not carried out.
type closing struct {
	labels map[string]string
	policy *model.Policy // denies all
}

// closings reads which workloads are closed: policies adds the refusal, modesOf demands mutual TLS.
func closings(c *compiler) {
	for _, o := range c.cfg.Closed {
		c.shut(o)
	}
}

func (c *compiler) shut(o snapshot.Closed) {
	if !kind.Closes(o.Key.Kind) {
		return
	}
	namespace := o.Key.Namespace
	if namespace == c.mesh.RootNamespace {
		namespace = ""
	}
	if c.closed == nil {
		c.closed = map[string][]closing{}
	}
	c.closed[namespace] = append(c.closed[namespace], closing{labels: o.Selector, policy: &model.Policy{
		Name: closedPrefix + strings.ReplaceAll(describe(o.Key), " ", "-"), Ref: at(describe(o.Key), o.Origin), Action: model.Deny, Rules: []model.Rule{{}},
	}})
}

// reportClosed says loudly what is written and not in force.
func (c *compiler) reportClosed() {
	for _, o := range c.cfg.Closed {
		message := "is not in force, as if it were not written: " + o.Reason
		if kind.Closes(o.Key.Kind) {
			message = "is not in force, so nobody may call " + scope(o, c.mesh.RootNamespace) + ": " + o.Reason
		}
		f := finding.Finding{
			Code: "ISM0201", Severity: finding.Error, File: o.Origin.File, Line: o.Origin.Line, Message: message, Remedy: "mend it, or remove it to do without it",
		}
		if o.Key.Kind != "" {
			f.Object = describe(o.Key)
		}
		c.findings = append(c.findings, f)
	}
}

// scope says what a closed object closes.
func scope(o snapshot.Closed, root string) string {
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

// closedBy are the refusals that close an instance.
func (c *compiler) closedBy(i *instance) []*model.Policy {
	var out []*model.Policy
	for _, namespace := range []string{"", i.namespace} {
		for _, cl := range c.closed[namespace] {
			if i.selectedBy(cl.labels) {
				out = append(out, cl.policy)
			}
		}
	}
	return out
}
