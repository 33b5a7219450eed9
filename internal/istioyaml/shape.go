package istioyaml

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/finding"
)

// shape is what JSON a Go type takes, so that a document can be checked field by field before it is decoded.
type shape struct {
	kind   shapeKind
	typ    reflect.Type      // of a leaf with its own decoder
	fields map[string]*shape // of an object
	names  []string          // of the fields, sorted
	elem   *shape            // of a list or map
}

type shapeKind int

const (
	anything shapeKind = iota
	object
	mapOf
	listOf
	str
	boolean
	integer
	number
	custom // the type decodes itself
)

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// shapeOf reads the JSON tags of a type. Types may not contain themselves.
func shapeOf(t reflect.Type) *shape {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return &shape{kind: custom, typ: t}
	}
	switch t.Kind() {
	case reflect.Struct:
		s := &shape{kind: object, fields: map[string]*shape{}}
		s.addFields(t)
		for name := range s.fields {
			s.names = append(s.names, name)
		}
		slices.Sort(s.names)
		return s
	case reflect.Map:
		return &shape{kind: mapOf, elem: shapeOf(t.Elem())}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return &shape{kind: str}
		}
		return &shape{kind: listOf, elem: shapeOf(t.Elem())}
	case reflect.String:
		return &shape{kind: str}
	case reflect.Bool:
		return &shape{kind: boolean}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8,
		reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &shape{kind: integer, typ: t}
	case reflect.Float32, reflect.Float64:
		return &shape{kind: number}
	default:
		return &shape{kind: anything}
	}
}

func (s *shape) addFields(t reflect.Type) {
	for f := range reflectFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			s.addFields(f.Type)
		case name != "":
			s.fields[name] = shapeOf(f.Type)
		}
	}
}

func reflectFields(t reflect.Type) func(func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			if !yield(t.Field(i)) {
				return
			}
		}
	}
}

// fits checks a JSON value against a shape. A field with nothing behind it passes here as absent; schemas refuse it.
func (r *report) fits(s *shape, path string, v any) {
	if v == nil {
		return
	}
	switch s.kind {
	case object:
		r.fitsObject(s, path, v)
	case mapOf:
		m, ok := v.(map[string]any)
		if !ok {
			r.wrongType(path, "a mapping", v)
		}
		for _, k := range sortedKeys(m) {
			r.fits(s.elem, finding.Child(path, k), m[k])
		}
	case listOf:
		list, ok := v.([]any)
		if !ok {
			r.wrongType(path, "a list", v)
		}
		for i, item := range list {
			r.fits(s.elem, fmt.Sprintf("%s[%d]", path, i), item)
		}
	case str:
		if _, ok := v.(string); !ok {
			r.wrongType(path, "text", v)
		}
	case boolean:
		if _, ok := v.(bool); !ok {
			r.wrongType(path, "true or false", v)
		}
	case integer:
		r.fitsInteger(s, path, v)
	case number:
		if _, ok := v.(float64); !ok {
			if _, ok := v.(int64); !ok {
				r.wrongType(path, "a number", v)
			}
		}
	case custom:
		r.fitsCustom(s, path, v)
	}
}

func (r *report) fitsObject(s *shape, path string, v any) {
	m, ok := v.(map[string]any)
	if !ok {
		r.wrongType(path, "a mapping", v)
		return
	}
	for _, k := range sortedKeys(m) {
		if f, ok := s.fields[k]; ok {
			r.fits(f, finding.Child(path, k), m[k])
		} else {
			r.unknownField(finding.Child(path, k), k, s.names)
		}
	}
}

func (r *report) fitsInteger(s *shape, path string, v any) {
	i, ok := v.(int64)
	if !ok {
		r.wrongType(path, "a whole number", v)
		return
	}
	n := reflect.New(s.typ).Elem()
	if n.CanInt() && n.OverflowInt(i) || n.CanUint() && (i < 0 || n.OverflowUint(uint64(i))) {
		r.refuse(finding.Invalid, path, fmt.Sprintf("%d is out of range", i), "write a number that the field can hold")
	}
}

func (r *report) fitsCustom(s *shape, path string, v any) {
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, reflect.New(s.typ).Interface())
	}
	if err != nil {
		r.refuse(finding.WrongType, path,
			fmt.Sprintf("%s is no %s: %v", finding.Clip(string(data)), s.typ.Name(), err),
			customRemedy(s.typ.Name()))
	}
}

func customRemedy(typeName string) string {
	switch typeName {
	case "Duration":
		return `write a duration such as "500ms", "90s" or "24h"`
	case "Time", "MicroTime":
		return `write a time such as "2030-01-31T12:00:00Z"`
	case "IntOrString":
		return "write a number or a name"
	}
	return "write a valid " + typeName
}

func (r *report) unknownField(path, name string, known []string) {
	r.refuse(finding.UnknownField, path,
		fmt.Sprintf("there is no field %q here", finding.Clip(name)),
		finding.DidYouMean(name, known))
}

func (r *report) wrongType(path, want string, v any) {
	remedy := "write " + want
	if _, isList := v.([]any); want == "text" && !isList {
		remedy = "put it in quotes"
	}
	if want == "a list" {
		remedy = "write a list: each item on its own line behind a hyphen"
	}
	r.refuse(finding.WrongType, path, fmt.Sprintf("must be %s, is %s", want, typeName(v)), remedy)
}
