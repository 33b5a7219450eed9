package istioyaml

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/util/validation"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// decode reads the object of a head; why says what is wrong with a kind that is not read. The object is nil when there
// are errors; the raw document comes along as far as it could be read.
func (h head) decode(
	k kind.Kind, s standing, n *yaml.Node, left *budget, validate Validator, why finding.Finding,
) (o *snapshot.Object, doc map[string]any, findings []finding.Finding) {
	t := newTree(n, left)
	r := &t.report
	r.object = h.label()
	defer func() {
		if fault := recover(); fault != nil {
			f := faulty(fault)
			f.Object, f.Line = r.object, r.origin.Line
			o, findings = nil, append(r.findings, f)
		}
	}()
	doc, _ = t.value(n, "", 0).(map[string]any)
	switch {
	case hasErrors(r.findings):
		return nil, nil, r.findings // keys may stand in it twice
	case s != standsRead:
		r.refuse(why.Code, why.Field, why.Message, why.Remedy)
		return nil, doc, r.findings
	}
	if !r.metadata(doc, k) {
		return nil, doc, r.findings
	}
	value := r.typed(k, doc, validate)
	if hasErrors(r.findings) {
		return nil, doc, r.findings
	}
	return snapshot.NewObject(value, r.origin), doc, r.findings
}

// metadata checks name and namespace and writes the namespace that a namespaced object means.
func (r *report) metadata(doc map[string]any, k kind.Kind) bool {
	md, ok := doc["metadata"].(map[string]any)
	if !ok {
		r.refuse(CodeMetadata, "metadata", "metadata is missing", "write metadata: with name: inside")
		return false
	}
	name, ok := md["name"].(string)
	if !ok || name == "" {
		r.refuse(CodeMetadata, "metadata.name", "the object has no name", "write metadata.name")
		return false
	}
	key := snapshot.Key{Kind: k.Name, Name: name}
	before := len(r.findings)
	r.name(k, name)
	switch ns := md["namespace"]; {
	case !k.Namespaced && ns != nil:
		r.refuse(CodeMetadata, "metadata.namespace", k.Name+" belongs to the whole mesh and has no namespace", "remove metadata.namespace")
	case k.Namespaced && ns == nil:
		key.Namespace = "default"
		md["namespace"] = key.Namespace
	case k.Namespaced:
		key.Namespace = text(ns)
		if len(validation.IsDNS1123Label(key.Namespace)) > 0 {
			r.refuse(CodeMetadata, "metadata.namespace", fmt.Sprintf("%q cannot be a namespace", clip(key.Namespace)), "use at most 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit")
		}
	}
	if len(r.findings) > before {
		return false
	}
	r.object = key.String()
	r.labels("metadata.labels", md["labels"])
	return true
}

func (r *report) name(k kind.Kind, name string) {
	if k.NameIsLabel && len(validation.IsDNS1123Label(name)) > 0 {
		r.refuse(CodeMetadata, "metadata.name", fmt.Sprintf("%q cannot be the name of a %s", clip(name), k.Name), "use at most 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit")
	} else if len(validation.IsDNS1123Subdomain(name)) > 0 {
		r.refuse(CodeMetadata, "metadata.name", fmt.Sprintf("%q cannot be a name", clip(name)), "use at most 253 lower-case letters, digits, hyphens and dots, beginning and ending with a letter or digit")
	}
}

// labels checks that labels could be labels; types are checked elsewhere.
func (r *report) labels(path string, v any) {
	m, _ := v.(map[string]any)
	for _, k := range sortedKeys(m) {
		if len(validation.IsQualifiedName(k)) > 0 {
			r.refuse(CodeMetadata, childPath(path, k), fmt.Sprintf("%q cannot be a label's key", clip(k)), "use letters, digits, '-', '_' and '.', at most 63, optionally after a DNS name and '/'")
		}
		if s, ok := m[k].(string); ok && len(validation.IsValidLabelValue(s)) > 0 {
			r.refuse(CodeMetadata, childPath(path, k), fmt.Sprintf("%q cannot be a label's value", clip(s)), "use at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit")
		}
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
