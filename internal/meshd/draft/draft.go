// Package draft drafts the objects that an import or export needs, and checks them before they are written to a file.
package draft

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/gate"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/schema"
	"isthmus.dev/isthmus/internal/snapshot"
)

// draft is a set of objects, and the mesh with and without them.
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

// object returns a new object. Its maps hold only JSON types.
func object(apiVersion, kind, namespace, name string, spec map[string]any) map[string]any {
	return map[string]any{
		"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name, "namespace": namespace},
		"spec": spec,
	}
}

const ownAPI, securityAPI = "isthmus.dev/v1alpha1", "security.istio.io/v1"

func keyOf(o map[string]any) snapshot.Key {
	meta := o["metadata"].(map[string]any)
	return snapshot.Key{Kind: o["kind"].(string), Namespace: meta["namespace"].(string), Name: meta["name"].(string)}
}

// text returns the objects as YAML.
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

// change returns the change that puts the objects in place. findings are errors in decoding them.
func (d *draft) change() (change snapshot.Change, findings []finding.Finding, err error) {
	text, err := d.text()
	if err != nil {
		return change, nil, err
	}
	f := istioyaml.Decode("", []byte(text), schema.New().Validate, nil)
	for _, o := range f.Objects {
		change.Put(o)
	}
	return change, f.Findings, nil
}

// without returns the snapshot without these objects.
func without(snap *snapshot.Snapshot, keys ...snapshot.Key) *snapshot.Snapshot {
	var change snapshot.Change
	for _, k := range keys {
		change.Remove(k)
	}
	return changed(snap, change)
}

func changed(snap *snapshot.Snapshot, change snapshot.Change) *snapshot.Snapshot {
	out := *snap
	out.Config = snap.Config.With(change)
	return &out
}

// judge asks the gate, and compiles the change. The response contains the resulting findings. It returns an error if
// the objects would have no effect.
func (d *draft) judge() (*adminapi.DraftResponse, error) {
	text, err := d.text()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	change, findings, err := d.change()
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	v := gate.Review(d.snap, change, gate.Who{Source: snapshot.SourceFile}) // as if it came from the folder
	if len(v.Refused) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "this would be refused: %s", v.Findings[0])
	}
	resp := &adminapi.DraftResponse{
		YAML: text, Objects: []adminapi.DraftedObject{}, Findings: []finding.Finding{},
		Notes: []string{},
	}
	var keys []snapshot.Key
	for _, o := range d.written {
		keys = append(keys, keyOf(o))
	}
	resp.Findings = append(resp.Findings, d.snap.Config.Report(findings, v.Findings, gate.Effects(d.snap, change))...)
	if i := slices.IndexFunc(resp.Findings,
		func(f finding.Finding) bool { return f.Severity == finding.Error }); i >= 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "this would be refused: %s", resp.Findings[i])
	}
	for _, k := range keys {
		o := adminapi.DraftedObject{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}
		if origin := d.snap.Config.Origin(k); origin.Source == snapshot.SourceFile {
			o.Stands, o.Same = fmt.Sprintf("%s:%d", origin.File,
				origin.Line), sameSpec(d.snap.Config, d.snap.Config.With(change), k)
		}
		resp.Objects = append(resp.Objects, o)
	}
	return resp, nil
}

// sameSpec reports whether an object has the same spec in both.
func sameSpec(a, b *snapshot.Config, k snapshot.Key) bool {
	x, y := a.Objects.Get(k), b.Objects.Get(k)
	return x != nil && y != nil && specOf(x) == specOf(y)
}

// specOf returns the hash of an object without labels and annotations.
func specOf(o *snapshot.Object) snapshot.Hash {
	bare := o.Value.(runtime.Object).DeepCopyObject().(metav1.Object)
	bare.SetLabels(nil)
	bare.SetAnnotations(nil)
	return snapshot.NewObject(bare, snapshot.Origin{}).Hash
}

// peerNamed returns the peer of that name, or an error with suggestions.
func peerNamed(snap *snapshot.Snapshot, name string) (*v1alpha1.MeshPeer, error) {
	var names []string
	for _, p := range snapshot.Of[*v1alpha1.MeshPeer](snap.Config) {
		if p.Name == name {
			return p, nil
		}
		names = append(names, p.Name)
	}
	return nil, notFound("there is no peer %q%s: isthmus peer list shows them", name, suggestion(name, names))
}

// suggestion returns the candidates similar to a name, as part of a sentence.
func suggestion(name string, candidates []string) string {
	if near := finding.Nearest(name, candidates); near != "" {
		return " (did you mean " + near + "?)"
	}
	return ""
}

// list converts a list to JSON types.
func list[T any](values []T) []any {
	out := []any{}
	for _, v := range values {
		out = append(out, v)
	}
	return out
}
