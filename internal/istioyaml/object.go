package istioyaml

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/strictyaml"
)

// decode decodes the object that has this head. why explains a kind that is not read. The object is nil if there are
// errors. The raw document is returned as far as it could be read.
func (h head) decode(
	k kind.Kind, s standing, n *yaml.Node, left *strictyaml.Budget, validate Validator, why refusal,
) (o *snapshot.Object, doc map[string]any, findings []finding.Finding) {
	r := &report{}
	r.Object = h.key().Normal()
	defer func() {
		if fault := recover(); fault != nil {
			f := faulty(fault)
			f.Object, f.Line = r.Object, r.Line
			o, findings = nil, append(r.Findings, f)
		}
	}()
	doc, _ = r.Value(n, left).(map[string]any)
	switch {
	case hasErrors(r.Findings):
		return nil, nil, r.Findings // keys may stand in it twice
	case s != standsRead:
		r.Refuse(why.code, why.field, why.message, why.remedy)
		return nil, doc, r.Findings
	}
	if !r.metadata(doc, k) {
		return nil, doc, r.Findings
	}
	value := r.typed(k, doc, validate)
	if hasErrors(r.Findings) {
		return nil, doc, r.Findings
	}
	return snapshot.NewObject(value, snapshot.Origin{Line: r.Line, Fields: snapshot.FieldsOf(r.Lines)}), doc, r.Findings
}

// metadata requires a name and sets the default namespace of a namespaced object.
func (r *report) metadata(doc map[string]any, k kind.Kind) bool {
	md, ok := doc["metadata"].(map[string]any)
	if !ok {
		r.Refuse(finding.Metadata, "metadata", "metadata is missing", "write metadata: with name: inside")
		return false
	}
	switch name := md["name"].(type) {
	case nil:
		r.Refuse(finding.Metadata, "metadata.name", "the object has no name", "write metadata.name")
		return false
	case string:
		if name == "" {
			r.Refuse(finding.Metadata, "metadata.name", "the object's name is empty", "write metadata.name")
			return false
		}
	default:
		r.WrongType("metadata.name", "text", name)
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
