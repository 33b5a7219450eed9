package istioyaml

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/check"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/strictyaml"
)

// report collects findings about one object.
type report struct{ strictyaml.Report }

// written checks what a kind's Go type cannot express: protobuf does not distinguish an empty list from an absent one,
// and an absent one would match anything.
var written = map[string]func(r *report, spec map[string]any){
	"AuthorizationPolicy": func(r *report, spec map[string]any) {
		rules, _ := spec["rules"].([]any)
		for i, rule := range rules {
			r.emptyLists(fmt.Sprintf("spec.rules[%d]", i), rule)
		}
	},
	"PeerAuthentication": func(r *report, spec map[string]any) {
		if ports, ok := spec["portLevelMtls"].(map[string]any); ok && len(ports) == 0 {
			r.Refuse(finding.Invalid, "spec.portLevelMtls", "no port is written inside",
				"write a port and its mode, or remove the field")
		}
	},
}

func (r *report) emptyLists(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range sortedKeys(v) {
			r.emptyLists(finding.Child(path, k), v[k])
		}
	case []any:
		if len(v) == 0 {
			r.Refuse(finding.Invalid, path, "an empty list restricts nothing",
				"write what it should hold, or remove it to mean anything")
		}
		for i, item := range v {
			r.emptyLists(fmt.Sprintf("%s[%d]", path, i), item)
		}
	}
}

// typed decodes a document into the Go type of its kind. The value is valid only if no error was recorded.
func (r *report) typed(k kind.Kind, doc map[string]any, validate Validator) metav1.Object {
	if k.Family != kind.Ours {
		delete(doc, "status")
	}
	r.Fits(shapes()[k.Name], "", doc)
	o := reflect.New(k.Type)
	var read bool
	switch k.Family {
	case kind.Ours:
		if validate != nil {
			r.addNew(validate(k.Name, doc))
		}
		read = !hasErrors(r.Findings) && r.remarshal(doc, o.Interface(), "")
	case kind.Core:
		read = !hasErrors(r.Findings) && r.remarshal(doc, o.Interface(), "")
	case kind.Istio:
		read = r.istio(k, o.Elem(), doc)
	}
	if !read {
		return nil
	}
	value := o.Interface().(metav1.Object)
	value.SetManagedFields(nil)
	r.Add(check.Object(value))
	if spec, ok := doc["spec"].(map[string]any); ok && written[k.Name] != nil {
		written[k.Name](r, spec)
	}
	return value
}

// shapes of each kind's documents.
var shapes = sync.OnceValue(func() map[string]*strictyaml.Shape {
	all := map[string]*strictyaml.Shape{}
	for _, k := range kind.All {
		all[k.Name] = strictyaml.ShapeOf(k.Type, "json")
		if k.Family == kind.Istio { // the protobuf message defines its spec
			all[k.Name] = strictyaml.ObjectOf(map[string]*strictyaml.Shape{
				"apiVersion": strictyaml.Text, "kind": strictyaml.Text, "spec": strictyaml.Anything,
				"metadata": strictyaml.ShapeOf(reflect.TypeFor[metav1.ObjectMeta](), "json"),
			})
		}
	}
	return all
})

// addNew adds a schema's findings about fields that have none yet.
func (r *report) addNew(findings []finding.Finding) {
	known := map[string]bool{}
	for _, f := range r.Findings {
		known[f.Field] = true
	}
	for _, f := range findings {
		if !known[f.Field] {
			known[f.Field] = true
			r.Add([]finding.Finding{f})
		}
	}
}

// istio decodes into a struct whose spec is a protobuf message.
func (r *report) istio(k kind.Kind, into reflect.Value, doc map[string]any) bool {
	message := into.FieldByName("Spec").Addr().Interface().(proto.Message)
	spec, written := doc["spec"]
	if written && spec == nil {
		delete(doc, "spec")
		written = false
	}
	if written {
		spec = r.fitsMessage(message.ProtoReflect().Descriptor(), "spec", spec)
	}
	meta := into.FieldByName("ObjectMeta").Addr().Interface()
	if hasErrors(r.Findings) || !r.remarshal(doc["metadata"], meta, "metadata") || written &&
		!r.protojson(spec, message) {
		return false
	}
	into.FieldByName("TypeMeta").Set(reflect.ValueOf(metav1.TypeMeta{APIVersion: k.APIVersions[0], Kind: k.Name}))
	return true
}

func (r *report) remarshal(v, into any, path string) bool {
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		r.Refuse(finding.WrongType, path, err.Error(), "compare with the kind's page in docs/kinds")
	}
	return err == nil
}

func (r *report) protojson(v any, into proto.Message) bool {
	data, err := json.Marshal(v)
	if err == nil {
		err = protojson.Unmarshal(data, into)
	}
	if err != nil {
		r.Refuse(finding.WrongType, "spec", err.Error(), "compare with the kind's page in docs/kinds")
	}
	return err == nil
}
