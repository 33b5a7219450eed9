package istioyaml

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// decode reads the object of a head; why says what is wrong with a kind that is not read. The object is nil when there
// are errors; the raw document comes along as far as it could be read.
func (h head) decode(
	k kind.Kind, s standing, n *yaml.Node, left *budget, validate Validator, why refusal,
) (o *snapshot.Object, doc map[string]any, findings []finding.Finding) {
	t := newTree(n, left)
	r := &t.report
	r.object = h.key().Normal()
	defer func() {
		if fault := recover(); fault != nil {
			f := faulty(fault)
			f.Object, f.Line = r.object, r.line
			o, findings = nil, append(r.findings, f)
		}
	}()
	doc, _ = t.value(n, "", 0).(map[string]any)
	switch {
	case hasErrors(r.findings):
		return nil, nil, r.findings // keys may stand in it twice
	case s != standsRead:
		r.refuse(why.code, why.field, why.message, why.remedy)
		return nil, doc, r.findings
	}
	if !r.metadata(doc, k) {
		return nil, doc, r.findings
	}
	value := r.typed(k, doc, validate)
	if hasErrors(r.findings) {
		return nil, doc, r.findings
	}
	return snapshot.NewObject(value, snapshot.Origin{Line: r.line, Fields: snapshot.FieldsOf(r.lines)}), doc, r.findings
}

// metadata demands a name and writes the namespace that a namespaced object means.
func (r *report) metadata(doc map[string]any, k kind.Kind) bool {
	md, ok := doc["metadata"].(map[string]any)
	if !ok {
		r.refuse(finding.Metadata, "metadata", "metadata is missing", "write metadata: with name: inside")
		return false
	}
	if text(md["name"]) == "" {
		r.refuse(finding.Metadata, "metadata.name", "the object has no name", "write metadata.name")
		return false
	}
	if k.Namespaced && md["namespace"] == nil {
		md["namespace"] = "default"
	}
	return true
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
