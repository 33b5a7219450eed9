package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/kind"
)

// Object is one configuration object. It is immutable.
type Object struct {
	Key Key
	// Value is a pointer to the kind's Go type, such as *corev1.Service. It is immutable too.
	Value  metav1.Object
	Origin Origin
	Hash   Hash
}

// NewObject panics if the Go type belongs to no kind or the value cannot be marshalled to JSON. A decoder returns
// neither.
func NewObject(value metav1.Object, origin Origin) *Object {
	return &Object{Key: KeyOf(value), Value: value, Origin: origin, Hash: hashOf(value)}
}

// At returns the same object with another origin.
func (o *Object) At(origin Origin) *Object {
	next := *o
	next.Origin = origin
	return &next
}

// after returns o as the successor of was, which may be nil. It returns was itself if nothing differs, and keeps the
// value of was if the content is the same.
func (o *Object) after(was *Object) *Object {
	switch {
	case o == nil || was == nil || o.Hash != was.Hash:
		return o
	case o.Origin.Equal(was.Origin):
		return was
	default:
		return was.At(o.Origin)
	}
}

// Key names one object.
type Key = kind.Key

// KeyOf returns the key of a value. It panics if the Go type belongs to no kind.
func KeyOf(value metav1.Object) Key {
	k, ok := kind.OfType(reflect.TypeOf(value))
	if !ok {
		panic(fmt.Sprintf("snapshot: %T is of no kind", value))
	}
	return Key{Kind: k.Name, Namespace: value.GetNamespace(), Name: value.GetName()}
}

// KeyFor returns the key of an object that need not exist: KeyFor[*corev1.Service]("shop", "cart"). It panics if T is
// of no kind.
func KeyFor[T metav1.Object](namespace, name string) Key {
	return Key{Kind: kindOf[T](), Namespace: namespace, Name: name}
}

// Source is the way by which an object arrived.
type Source string

// The sources.
const (
	SourceFile  Source = "file"  // written in the configuration folder
	SourceToken Source = "token" // created by a peering with a join token
)

// Origin says where an object comes from. The zero value means unknown.
type Origin struct {
	Source Source
	// File and Line locate an object that is written in a file.
	File string
	Line int
	// Fields holds the line of each field, relative to Line: an object that only moves within its file keeps them. Use
	// LineOf to read them.
	Fields Fields
	// FirstSeen is when the object was first seen. It survives restarts and is equal for objects that arrived together;
	// zero means unknown. Use Config.Older to compare ages.
	FirstSeen time.Time
}

// Equal reports whether all fields are equal.
func (o Origin) Equal(p Origin) bool {
	return o.Source == p.Source && o.File == p.File && o.Line == p.Line && o.FirstSeen.Equal(p.FirstSeen) &&
		o.Fields == p.Fields
}

// LineOf returns the line of a field, else of its nearest enclosing field, else of the object.
func (o Origin) LineOf(field string) int {
	for f := range Enclosing(field) {
		if l, ok := o.Fields.line(f); ok {
			return o.Line + l
		}
	}
	return o.Line
}

// Hash is the SHA-256 of an object's content: kind, namespace, name, labels, annotations, and everything outside
// metadata and status, as JSON written from its Go type. It does not cover the apiVersion, the file position, comments,
// key order, or metadata that a server adds.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal.
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
