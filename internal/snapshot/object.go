package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/kind"
)

// Object is one object of the configuration. It is never written once it is made.
type Object struct {
	Key Key
	// Value is a pointer to the Go type of the kind, such as *corev1.Service. It is never written either.
	Value  metav1.Object
	Origin Origin
	Hash   Hash
}

// NewObject makes an object of a value. It panics for a Go type that is of no kind, and for a value that cannot be
// written as JSON; neither can come out of a decoder.
func NewObject(value metav1.Object, origin Origin) *Object {
	return &Object{Key: KeyOf(value), Value: value, Origin: origin, Hash: hashOf(value)}
}

// at is the same object with another origin.
func (o *Object) at(origin Origin) *Object {
	next := *o
	next.Origin = origin
	return &next
}

// after is o in the place of was, which may be nil: was itself where nothing is different, and the value of was where
// the content is the same.
func (o *Object) after(was *Object) *Object {
	switch {
	case o == nil || was == nil || o.Hash != was.Hash:
		return o
	case o.Origin.Equal(was.Origin):
		return was
	default:
		return was.at(o.Origin)
	}
}

// Key names one object.
type Key = kind.Key

// KeyOf is the key of a value. It panics for a Go type that is of no kind.
func KeyOf(value metav1.Object) Key {
	k, ok := kind.OfType(reflect.TypeOf(value))
	if !ok {
		panic(fmt.Sprintf("snapshot: %T is of no kind", value))
	}
	return Key{Kind: k.Name, Namespace: value.GetNamespace(), Name: value.GetName()}
}

// Source says how an object came here.
type Source string

// The sources.
const (
	SourceFile  Source = "file"  // it is written in the configuration folder
	SourceToken Source = "token" // it was made by a peering
)

// Origin is where an object comes from. Its zero value is not known.
type Origin struct {
	Source Source
	// File and Line of an object that is written in a file.
	File string
	Line int
	// Fields maps a field path ("spec.to[0].peer") to its line, counted from Line (0 is Line itself): so an object that
	// only moved down its file keeps one map. Ask LineOf.
	Fields map[string]int
	// FirstSeen is the object's age: when it was first seen, kept across restarts. Objects that came together have the
	// same. Zero is not known. Ask Config.Older.
	FirstSeen time.Time
}

// Equal says whether two are the same in every field.
func (o Origin) Equal(p Origin) bool {
	return o.Source == p.Source && o.File == p.File && o.Line == p.Line && o.FirstSeen.Equal(p.FirstSeen) &&
		maps.Equal(o.Fields, p.Fields)
}

// LineOf is the line of a field, or of its nearest enclosing field, or of the object.
func (o Origin) LineOf(field string) int {
	for f := field; f != ""; f = parentField(f) {
		if l, ok := o.Fields[f]; ok {
			return o.Line + l
		}
	}
	return o.Line
}

func parentField(f string) string {
	for i := len(f) - 1; i > 0; i-- {
		if f[i] == '.' || f[i] == '[' {
			return f[:i]
		}
	}
	return ""
}

// Hash is the SHA-256 of an object's content: its kind, namespace, name, labels and annotations, and all that it says
// beside its metadata and status, as the JSON that its Go type writes. The apiVersion, the place where it is written,
// comments, the order of keys, and what a server adds to metadata have no part in it.
type Hash [sha256.Size]byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

func hashOf(value metav1.Object) Hash {
	content, err := contentOf(value)
	if err != nil {
		panic(fmt.Sprintf("snapshot: write %s as JSON: %v", KeyOf(value), err))
	}
	return sha256.Sum256(content)
}

func contentOf(value metav1.Object) ([]byte, error) {
	content := map[string]any{
		"kind": KeyOf(value).Kind,
		"metadata": map[string]any{
			"namespace": value.GetNamespace(), "name": value.GetName(), "labels": value.GetLabels(),
			"annotations": value.GetAnnotations(),
		},
	}
	v := reflect.ValueOf(value).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if name != "" && name != "metadata" && name != "status" {
			content[name] = v.Field(i).Addr().Interface()
		}
	}
	return json.Marshal(content)
}
