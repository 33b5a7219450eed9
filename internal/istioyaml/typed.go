package istioyaml

import (
	"encoding/json"
	"reflect"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

// check judges what the type of an object cannot say. The raw document shows what was written where the type cannot.
type check func(r *report, o metav1.Object, doc map[string]any)

// checks has one of each kind.
var checks = map[string]check{
	"Mesh":                of(checkMesh),
	"MeshPeer":            of(checkMeshPeer),
	"FederatedExport":     of(checkFederatedExport),
	"FederatedImport":     of(checkFederatedImport),
	"Namespace":           func(*report, metav1.Object, map[string]any) {}, // its type says all
	"Service":             of(checkService),
	"PeerAuthentication":  of(checkPeerAuthentication),
	"AuthorizationPolicy": of(checkAuthorizationPolicy),
	"ServiceEntry":        of(checkServiceEntry),
	"WorkloadEntry":       of(checkWorkloadEntry),
}

func of[T metav1.Object](c func(*report, T, map[string]any)) check {
	return func(r *report, o metav1.Object, doc map[string]any) { c(r, o.(T), doc) }
}

// typed decodes a document into the Go type of its kind. The value counts only if no error was recorded.
func (r *report) typed(k kind.Kind, doc map[string]any, validate Validator) metav1.Object {
	if k.Family != kind.Ours {
		delete(doc, "status")
	}
	r.fits(shapes()[k.Name], "", doc)
	o := reflect.New(k.Type)
	var read bool
	switch k.Family {
	case kind.Ours:
		if validate != nil {
			r.add(validate(k.Name, doc))
		}
		read = !hasErrors(r.findings) && r.remarshal(doc, o.Interface(), "")
	case kind.Core:
		read = !hasErrors(r.findings) && r.remarshal(doc, o.Interface(), "")
	case kind.Istio:
		read = r.istio(k, o.Elem(), doc)
	}
	if !read {
		return nil
	}
	value := o.Interface().(metav1.Object)
	value.SetManagedFields(nil)
	checks[k.Name](r, value, doc)
	return value
}

// shapes of the documents of each kind.
var shapes = sync.OnceValue(func() map[string]*shape {
	all := map[string]*shape{}
	for _, k := range kind.All {
		all[k.Name] = shapeOf(k.Type)
		if k.Family == kind.Istio { // the message says what its spec may hold
			all[k.Name] = &shape{
				kind: object, names: []string{"apiVersion", "kind", "metadata", "spec"},
				fields: map[string]*shape{
					"apiVersion": {kind: str}, "kind": {kind: str}, "metadata": shapeOf(reflect.TypeFor[metav1.ObjectMeta]()),
					"spec": {kind: anything},
				},
			}
		}
	}
	return all
})

// add takes over a schema's findings about fields in which nothing was found yet.
func (r *report) add(findings []finding.Finding) {
	known := map[string]bool{}
	for _, f := range r.findings {
		known[f.Field] = true
	}
	for _, f := range findings {
		if known[f.Field] {
			continue
		}
		known[f.Field] = true
		f.Object, f.Line = r.object, r.origin.LineOf(f.Field)
		r.findings = append(r.findings, f)
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
		r.fitsMessage(message.ProtoReflect().Descriptor(), "spec", spec)
	}
	meta := into.FieldByName("ObjectMeta").Addr().Interface()
	if hasErrors(r.findings) || !r.remarshal(doc["metadata"], meta, "metadata") || written && !r.protojson(spec, message) {
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
		r.refuse(CodeType, path, err.Error(), "compare with the kind's page in docs/kinds")
	}
	return err == nil
}

func (r *report) protojson(v any, into proto.Message) bool {
	data, err := json.Marshal(v)
	if err == nil {
		err = protojson.Unmarshal(data, into)
	}
	if err != nil {
		r.refuse(CodeType, "spec", err.Error(), "compare with the kind's page in docs/kinds")
	}
	return err == nil
}
