// Package draft writes the objects that a peering needs, and judges them before anybody has them in a file.
package draft

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	security "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
)

// draft is objects as they would be written, and the mesh with and without them.
type draft struct {
	snap    *snapshot.Snapshot
	written []map[string]any
}

func notFound(format string, args ...any) error {
	return status.Errorf(codes.NotFound, format, args...)
}

func refusedDraft(format string, args ...any) error {
	return status.Errorf(codes.InvalidArgument, format, args...)
}

// object begins one. Its maps hold what JSON can, and nothing else.
func object(apiVersion, kind, namespace, name string, spec map[string]any) map[string]any {
	return map[string]any{
		"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name, "namespace": namespace}, "spec": spec,
	}
}

const ownAPI, securityAPI = "isthmus.dev/v1alpha1", "security.istio.io/v1"

func keyOf(o map[string]any) snapshot.Key {
	meta := o["metadata"].(map[string]any)
	return snapshot.Key{Kind: o["kind"].(string), Namespace: meta["namespace"].(string), Name: meta["name"].(string)}
}

// text is the objects as YAML.
func (d *draft) text() (string, error) {
	var docs []string
	for _, o := range d.written {
		b, err := yaml.Marshal(o)
		if err != nil {
			return "", err
		}
		docs = append(docs, string(b))
	}
	return strings.Join(docs, "---\n"), nil
}

// with is the snapshot with the objects in the place of those of their names, and what is wrong with reading them.
func (d *draft) with() (*snapshot.Snapshot, []finding.Finding, error) {
	text, err := d.text()
	if err != nil {
		return nil, nil, err
	}
	f := istioyaml.Decode("", []byte(text), schema.New().Validate, nil)
	out, cfg := *d.snap, *d.snap.Config
	for _, o := range f.Objects {
		switch v := o.Value.(type) {
		case *v1alpha1.FederatedExport:
			cfg.FederatedExports = put(cfg.FederatedExports, v)
		case *v1alpha1.FederatedImport:
			cfg.FederatedImports = put(cfg.FederatedImports, v)
		case *security.AuthorizationPolicy:
			cfg.AuthorizationPolicies = put(cfg.AuthorizationPolicies, v)
		}
	}
	out.Config = &cfg
	return &out, f.Findings, nil
}

// without is the snapshot without objects of these names.
func without(snap *snapshot.Snapshot, keys ...snapshot.Key) *snapshot.Snapshot {
	out, cfg := *snap, *snap.Config
	for _, k := range keys {
		switch k.Kind {
		case "FederatedExport":
			cfg.FederatedExports = leave(cfg.FederatedExports, k)
		case "FederatedImport":
			cfg.FederatedImports = leave(cfg.FederatedImports, k)
		case "AuthorizationPolicy":
			cfg.AuthorizationPolicies = leave(cfg.AuthorizationPolicies, k)
		}
	}
	out.Config = &cfg
	return &out
}

func leave[T metav1.Object](list []T, k snapshot.Key) []T {
	return slices.DeleteFunc(slices.Clone(list), func(o T) bool { return o.GetNamespace() == k.Namespace && o.GetName() == k.Name })
}

// put keeps a list in the order of namespace and name.
func put[T metav1.Object](list []T, o T) []T {
	list = leave(list, snapshot.Key{Namespace: o.GetNamespace(), Name: o.GetName()})
	order := func(o T) string { return o.GetNamespace() + "\x00" + o.GetName() }
	at, _ := slices.BinarySearchFunc(list, order(o), func(e T, key string) int { return strings.Compare(order(e), key) })
	return slices.Insert(list, at, o)
}

// allFindings are those of compiling, and of those who ask.
func allFindings(snap *snapshot.Snapshot) (*model.Mesh, []finding.Finding) {
	mesh, findings := compile.Mesh(snap)
	return mesh, append(findings, compile.Crossing(snap, mesh)...)
}

// judge compiles the mesh with the objects. What they bring about is among the response; what would keep them from having an
// effect is an error.
func (d *draft) judge() (*adminapi.DraftResponse, error) {
	text, err := d.text()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	next, findings, err := d.with()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	resp := &adminapi.DraftResponse{YAML: text, Objects: []adminapi.DraftedObject{}, Findings: []finding.Finding{}, Notes: []string{}}
	var keys []snapshot.Key
	for _, o := range d.written {
		keys = append(keys, keyOf(o))
	}
	_, before := allFindings(without(d.snap, keys...))
	_, after := allFindings(next)
	known := map[string]bool{}
	for _, f := range before {
		known[f.String()] = true
	}
	for _, f := range append(findings, after...) {
		if !known[f.String()] {
			known[f.String()] = true
			resp.Findings = append(resp.Findings, f)
		}
	}
	finding.Sort(resp.Findings)
	if i := slices.IndexFunc(resp.Findings, func(f finding.Finding) bool { return f.Severity == finding.Error }); i >= 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "this would be refused: %s", resp.Findings[i])
	}
	for _, k := range keys {
		o := adminapi.DraftedObject{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}
		if origin := d.snap.Config.Origins.Lookup(k); origin.File != "" {
			o.Stands, o.Same = fmt.Sprintf("%s:%d", origin.File, origin.Line), sameSpec(d.snap.Config, next.Config, k)
		}
		resp.Objects = append(resp.Objects, o)
	}
	return resp, nil
}

func sameSpec(a, b *snapshot.Config, k snapshot.Key) bool {
	switch k.Kind {
	case "FederatedExport":
		x, y := objectNamed(a.FederatedExports, k), objectNamed(b.FederatedExports, k)
		return x != nil && y != nil && reflect.DeepEqual(x.Spec, y.Spec)
	case "FederatedImport":
		x, y := objectNamed(a.FederatedImports, k), objectNamed(b.FederatedImports, k)
		return x != nil && y != nil && reflect.DeepEqual(x.Spec, y.Spec)
	}
	x, y := objectNamed(a.AuthorizationPolicies, k), objectNamed(b.AuthorizationPolicies, k)
	return x != nil && y != nil && proto.Equal(&x.Spec, &y.Spec)
}

func objectNamed[P interface {
	*T
	metav1.Object
}, T any](list []P, k snapshot.Key) P {
	for _, o := range list {
		if o.GetNamespace() == k.Namespace && o.GetName() == k.Name {
			return o
		}
	}
	return nil
}

// peerNamed is the peer of a name, or an error that says which may have been meant.
func peerNamed(snap *snapshot.Snapshot, name string) (*v1alpha1.MeshPeer, error) {
	var names []string
	for _, p := range snap.Config.MeshPeers {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return nil, notFound("there is no peer %q%s: isthmus peer list shows them", name, meant(name, names))
}

// meant is what may have been meant by a name, as a part of a sentence.
func meant(name string, candidates []string) string {
	if near := istioyaml.Nearest(name, candidates); near != "" {
		return " (did you mean " + near + "?)"
	}
	return ""
}

// list is a list as JSON has it.
func list[T any](values []T) []any {
	out := []any{}
	for _, v := range values {
		out = append(out, v)
	}
	return out
}
