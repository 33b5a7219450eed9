package istioyaml

import (
	"encoding/json"
	"reflect"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

// row makes a kind's Go object from a checked document.
type row struct {
	kind  string
	build func(r *report, doc map[string]any, validate Validator) any
}

var rows = []row{
	{"Mesh", ours(checkMesh)},
	{"MeshPeer", ours(checkMeshPeer)},
	{"FederatedExport", ours(checkFederatedExport)},
	{"FederatedImport", ours(checkFederatedImport)},
	{"Namespace", core[corev1.Namespace](nil)},
	{"Service", core(checkService)},
	{
		"PeerAuthentication",
		istio(func(o *security.PeerAuthentication) parts { return parts{&o.TypeMeta, &o.ObjectMeta, &o.Spec} },
			checkPeerAuthentication),
	},
	{
		"AuthorizationPolicy",
		istio(func(o *security.AuthorizationPolicy) parts { return parts{&o.TypeMeta, &o.ObjectMeta, &o.Spec} },
			checkAuthorizationPolicy),
	},
	{
		"ServiceEntry",
		istio(func(o *networking.ServiceEntry) parts { return parts{&o.TypeMeta, &o.ObjectMeta, &o.Spec} },
			checkServiceEntry),
	},
	{
		"WorkloadEntry",
		istio(func(o *networking.WorkloadEntry) parts { return parts{&o.TypeMeta, &o.ObjectMeta, &o.Spec} },
			checkWorkloadEntry),
	},
}

// typed decodes a document into the Go type of its kind. The value counts only if no error was recorded.
func (r *report) typed(k kind.Kind, doc map[string]any, validate Validator) any {
	for _, row := range rows {
		if row.kind == k.Name {
			return row.build(r, doc, validate)
		}
	}
	r.refuse(CodeUnknownKind, "kind", k.Name+" has no decoder", "report this as a bug")
	return nil
}

// check judges what the type of an object cannot say. The raw document shows what was written where the type cannot.
type check[T any] func(r *report, o *T, doc map[string]any)

// ours decodes one of Isthmus's own kinds: the Go type judges fields and their types, the schema what they may hold.
func ours[T any](c check[T]) func(*report, map[string]any, Validator) any {
	whole := sync.OnceValue(func() *shape { return shapeOf(reflect.TypeFor[T]()) })
	return func(r *report, doc map[string]any, validate Validator) any {
		r.fits(whole(), "", doc)
		if validate != nil {
			r.add(validate(text(doc["kind"]), doc))
		}
		return finish(r, doc, c)
	}
}

// core decodes a kind of core/v1.
func core[T any](c check[T]) func(*report, map[string]any, Validator) any {
	whole := sync.OnceValue(func() *shape { return shapeOf(reflect.TypeFor[T]()) })
	return func(r *report, doc map[string]any, _ Validator) any {
		delete(doc, "status")
		r.fits(whole(), "", doc)
		return finish(r, doc, c)
	}
}

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

func finish[T any](r *report, doc map[string]any, c check[T]) any {
	if hasErrors(r.findings) {
		return nil
	}
	o := new(T)
	if !r.remarshal(doc, o, "") {
		return nil
	}
	if c != nil {
		c(r, o, doc)
	}
	return o
}

// parts are those of an Istio object.
type parts struct {
	typ  *metav1.TypeMeta
	meta *metav1.ObjectMeta
	spec proto.Message
}

// istio decodes a kind whose spec is a protobuf message.
func istio[T any](of func(*T) parts, c check[T]) func(*report, map[string]any, Validator) any {
	whole := sync.OnceValue(func() *shape {
		meta := shapeOf(reflect.TypeFor[metav1.ObjectMeta]())
		return &shape{
			kind: object, names: []string{"apiVersion", "kind", "metadata", "spec"},
			fields: map[string]*shape{"apiVersion": {kind: str}, "kind": {kind: str}, "metadata": meta, "spec": {kind: anything}},
		}
	})
	return func(r *report, doc map[string]any, _ Validator) any {
		delete(doc, "status")
		o := new(T)
		p := of(o)
		r.fits(whole(), "", doc)
		spec, written := doc["spec"]
		if written && spec == nil {
			delete(doc, "spec")
			written = false
		}
		if written {
			r.fitsMessage(p.spec.ProtoReflect().Descriptor(), "spec", spec)
		}
		if hasErrors(r.findings) || !r.remarshal(doc["metadata"], p.meta, "metadata") || written && !r.protojson(spec, p.spec) {
			return nil
		}
		k, _ := kind.Named(text(doc["kind"]))
		*p.typ = metav1.TypeMeta{APIVersion: k.APIVersions[0], Kind: k.Name}
		c(r, o, doc)
		return o
	}
}

func (r *report) remarshal(v, into any, path string) bool {
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, into)
	}
	if err != nil {
		r.refuse(CodeType, path, err.Error(), "compare with the kind's page in docs/kinds")
	}
	if o, ok := into.(metav1.Object); ok {
		o.SetManagedFields(nil)
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
