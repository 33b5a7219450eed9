package hostile

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"isthmus.dev/isthmus/internal/kind"
)

// TestEveryKind: a kind that is read has documents to begin with, and a type with places for what is hostile.
func TestEveryKind(t *testing.T) {
	for _, k := range kind.All {
		if len(seeds[k.Name]) == 0 {
			t.Errorf("%s has no document to begin with: write one into seeds of internal/hostile/seeds_test.go", k.Name)
		}
		if len(leavesOf(k.Name)) < 5 {
			t.Errorf("kind %s has %d leaves", k.Name, len(leavesOf(k.Name)))
		}
	}
}

// leaf is one place in the documents of a kind where a value may stand. In path "[]" is an item of a list, "{}" one of
// a map.
type leaf struct {
	path  []string
	kind  leafKind
	names []string // of an enum
}

func (l leaf) String() string { return strings.Join(l.path, ".") }

type leafKind int

const (
	text leafKind = iota
	boolean
	number
	enum
	custom // a type that decodes itself: a time, a duration, a number or text
	list
	mapping
)

const maxDepth = 12

func leavesOf(name string) []leaf {
	w := &walker{}
	k, _ := kind.Named(name)
	w.goType(k.Type, nil)
	return w.leaves
}

type walker struct{ leaves []leaf }

func (w *walker) add(kind leafKind, path []string, names ...string) {
	w.leaves = append(w.leaves, leaf{path: append([]string(nil), path...), kind: kind, names: names})
}

var (
	unmarshaler = reflect.TypeFor[json.Unmarshaler]()
	message     = reflect.TypeFor[proto.Message]()
)

func (w *walker) goType(t reflect.Type, path []string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if len(path) > maxDepth {
		return
	}
	if reflect.PointerTo(t).Implements(message) {
		w.message(reflect.New(t).Interface().(proto.Message).ProtoReflect().Descriptor(), path)
		return
	}
	if len(path) > 0 && reflect.PointerTo(t).Implements(unmarshaler) {
		w.add(custom, path)
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case name == "-" || !f.IsExported() || name == "status":
			case name == "" && f.Anonymous:
				w.goType(f.Type, path)
			case name != "":
				w.goType(f.Type, append(path, name))
			}
		}
	case reflect.Map:
		w.add(mapping, path)
		w.goType(t.Elem(), append(path, "{}"))
	case reflect.Slice:
		w.add(list, path)
		w.goType(t.Elem(), append(path, "[]"))
	case reflect.String:
		w.add(text, path)
	case reflect.Bool:
		w.add(boolean, path)
	default:
		w.add(number, path)
	}
}

func (w *walker) message(md protoreflect.MessageDescriptor, path []string) {
	if strings.HasPrefix(string(md.FullName()), "google.protobuf.") {
		w.add(custom, path)
		return
	}
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		at := append(path, fd.JSONName())
		switch {
		case len(at) > maxDepth:
		case fd.IsMap():
			w.add(mapping, at)
			w.single(fd.MapValue(), append(at, "{}"))
		case fd.IsList():
			w.add(list, at)
			w.single(fd, append(at, "[]"))
		default:
			w.single(fd, at)
		}
	}
}

func (w *walker) single(fd protoreflect.FieldDescriptor, path []string) {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		w.message(fd.Message(), path)
	case protoreflect.EnumKind:
		var names []string
		for i := range fd.Enum().Values().Len() {
			names = append(names, string(fd.Enum().Values().Get(i).Name()))
		}
		w.add(enum, path, names...)
	case protoreflect.StringKind, protoreflect.BytesKind:
		w.add(text, path)
	case protoreflect.BoolKind:
		w.add(boolean, path)
	default:
		w.add(number, path)
	}
}

// at is the value at a path of a document, the first item of each list and the first key of each map, and how many
// steps of the path are there.
func at(doc any, path []string) (v any, depth int) {
	v = doc
	for i, step := range path {
		next, ok := step1(v, step)
		if !ok {
			return nil, i
		}
		v = next
	}
	return v, len(path)
}

func step1(v any, step string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		if step == "{}" {
			for _, k := range sorted(v) {
				return v[k], true
			}
			return nil, false
		}
		next, ok := v[step]
		return next, ok
	case []any:
		if step == "[]" && len(v) > 0 {
			return v[0], true
		}
	}
	return nil, false
}

// with is a document with another value at a path; what lies on the way is made.
func with(doc any, path []string, value any) any {
	if len(path) == 0 {
		return value
	}
	switch step := path[0]; step {
	case "[]":
		old, _ := doc.([]any)
		out := append([]any(nil), old...)
		if len(out) == 0 {
			out = []any{nil}
		}
		out[0] = with(out[0], path[1:], value)
		return out
	case "{}":
		old, _ := doc.(map[string]any)
		out := clone(old)
		key := "app"
		for _, k := range sorted(old) {
			key = k
			break
		}
		out[key] = with(out[key], path[1:], value)
		return out
	default:
		old, _ := doc.(map[string]any)
		out := clone(old)
		out[step] = with(out[step], path[1:], value)
		return out
	}
}

func clone(m map[string]any) map[string]any {
	out := make(map[string]any, len(m)+1)
	for k, v := range m {
		out[k] = v
	}
	return out
}
