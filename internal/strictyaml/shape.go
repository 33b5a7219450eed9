package strictyaml

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/finding"
)

// Shape describes the JSON that a Go type accepts, so that a document can be checked field by field before decoding.
type Shape struct {
	kind   shapeKind
	typ    reflect.Type      // of a leaf with its own decoder
	fields map[string]*Shape // of an object
	names  []string          // field names, sorted
	elem   *Shape            // of a list or map
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
	duration
	custom // the type decodes itself
)

// The shapes of any value and of a string.
var (
	Anything = &Shape{kind: anything}
	Text     = &Shape{kind: str}
)

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// ShapeOf returns the shape of a type according to its tags, for example json:"name,omitempty" or yaml:"name"; tag is
// the word before the colon. Recursive types are not supported.
func ShapeOf(t reflect.Type, tag string) *Shape {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch p := reflect.PointerTo(t); {
	case t == reflect.TypeFor[time.Duration]():
		return &Shape{kind: duration}
	case p.Implements(unmarshaler), p.Implements(textUnmarshaler):
		return &Shape{kind: custom, typ: t}
	}
	switch t.Kind() {
	case reflect.Struct:
		fields := map[string]*Shape{}
		addFields(fields, t, tag)
		return ObjectOf(fields)
	case reflect.Map:
		return &Shape{kind: mapOf, elem: ShapeOf(t.Elem(), tag)}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return &Shape{kind: str}
		}
		return &Shape{kind: listOf, elem: ShapeOf(t.Elem(), tag)}
	case reflect.String:
		return &Shape{kind: str}
	case reflect.Bool:
		return &Shape{kind: boolean}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8,
		reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &Shape{kind: integer, typ: t}
	case reflect.Float32, reflect.Float64:
		return &Shape{kind: number}
	default:
		return &Shape{kind: anything}
	}
}

// ObjectOf returns the shape of an object with these fields.
func ObjectOf(fields map[string]*Shape) *Shape {
	return &Shape{kind: object, fields: fields, names: slices.Sorted(maps.Keys(fields))}
}

func addFields(fields map[string]*Shape, t reflect.Type, tag string) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get(tag), ",")
		switch {
		case name == "-" || !f.IsExported():
		case name == "" && f.Anonymous:
			addFields(fields, f.Type, tag)
		case name != "":
			fields[name] = ShapeOf(f.Type, tag)
		}
	}
}

// Fits checks a JSON value against a shape. An empty field passes as absent here; schemas refuse it.
func (r *Report) Fits(s *Shape, path string, v any) {
	if v == nil {
		return
	}
	switch s.kind {
	case object:
		r.fitsObject(s, path, v)
	case mapOf:
		m, ok := v.(map[string]any)
		if !ok {
			r.WrongType(path, "a mapping", v)
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			r.Fits(s.elem, finding.Child(path, k), m[k])
		}
	case listOf:
		list, ok := v.([]any)
		if !ok {
			r.WrongType(path, "a list", v)
		}
		for i, item := range list {
			r.Fits(s.elem, fmt.Sprintf("%s[%d]", path, i), item)
		}
	case str:
		if _, ok := v.(string); !ok {
			r.WrongType(path, "text", v)
		}
	case boolean:
		if _, ok := v.(bool); !ok {
			r.WrongType(path, "true or false", v)
		}
	case integer:
		r.fitsInteger(s, path, v)
	case number:
		if _, ok := v.(float64); !ok {
			if _, ok := v.(int64); !ok {
				r.WrongType(path, "a number", v)
			}
		}
	case duration:
		r.Duration(path, v)
	case custom:
		r.fitsCustom(s, path, v)
	}
}

func (r *Report) fitsObject(s *Shape, path string, v any) {
	m, ok := v.(map[string]any)
	if !ok {
		r.WrongType(path, "a mapping", v)
		return
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if f, ok := s.fields[k]; ok {
			r.Fits(f, finding.Child(path, k), m[k])
		} else {
			r.UnknownField(finding.Child(path, k), k, s.names)
		}
	}
}

func (r *Report) fitsInteger(s *Shape, path string, v any) {
	i, ok := v.(int64)
	if !ok {
		r.WrongType(path, "a whole number", v)
		return
	}
	n := reflect.New(s.typ).Elem()
	if n.CanInt() && n.OverflowInt(i) || n.CanUint() && (i < 0 || n.OverflowUint(uint64(i))) {
		r.Refuse(finding.Invalid, path, fmt.Sprintf("%d is out of range", i), "write a number "+rangeOf(s.typ))
	}
}

// rangeOf returns "from 0 to 65535" for the numbers of an integer type.
func rangeOf(t reflect.Type) string {
	if reflect.Zero(t).CanUint() {
		return fmt.Sprintf("from 0 to %d", uint64(math.MaxUint64)>>(64-t.Bits()))
	}
	highest := int64(math.MaxInt64) >> (64 - t.Bits())
	return fmt.Sprintf("from %d to %d", -highest-1, highest)
}

func (r *Report) fitsCustom(s *Shape, path string, v any) {
	data, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(data, reflect.New(s.typ).Interface())
	}
	if err != nil {
		what, remedy := expected(s.typ.Name())
		r.Refuse(finding.WrongType, path, fmt.Sprintf("%s is not %s", finding.Clip(string(data)), what), remedy)
	}
}

// Duration parses a duration in Go's notation ("500ms", "1m30s"). If it is invalid, Duration adds a finding and ok is
// false.
func (r *Report) Duration(path string, v any) (d time.Duration, ok bool) {
	text, ok := v.(string)
	if !ok {
		r.Refuse(finding.WrongType, path, "must be a duration, is "+TypeName(v), durationRemedy)
		return 0, false
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		r.Refuse(finding.WrongType, path, fmt.Sprintf("%q is not a duration", finding.Clip(text)), durationRemedy)
	}
	return d, err == nil
}

const durationRemedy = `write a duration such as "500ms", "90s" or "24h"`

// expected returns what a value of a type with a text form is ("an IP address"), and the remedy for one that is not.
func expected(typeName string) (what, remedy string) {
	switch typeName {
	case "Duration":
		return "a duration", durationRemedy
	case "Time", "MicroTime":
		return "a time", `write a time such as "2030-01-31T12:00:00Z"`
	case "Addr":
		return "an IP address", `write an IP address such as "10.0.0.1"`
	case "Prefix":
		return "a range of IP addresses", `write a range such as "10.0.0.0/8"`
	case "Level":
		return "a log level", "write debug, info, warn or error"
	case "IntOrString":
		return "a number or a name", "write a number or a name"
	}
	return "a valid " + typeName, "write a valid " + typeName
}

// UnknownField adds a finding about an unknown field.
func (r *Report) UnknownField(path, name string, known []string) {
	r.Refuse(finding.UnknownField, path,
		fmt.Sprintf("there is no field %q here", finding.Clip(name)),
		finding.DidYouMean(name, known))
}

// WrongType adds a finding about a value that is not of the wanted type: "text", "a list".
func (r *Report) WrongType(path, want string, v any) {
	remedy := "write " + want
	if _, isList := v.([]any); want == "text" && !isList {
		remedy = "put it in quotes"
	}
	if want == "a list" {
		remedy = "write a list: each item on its own line behind a hyphen"
	}
	r.Refuse(finding.WrongType, path, fmt.Sprintf("must be %s, is %s", want, TypeName(v)), remedy)
}
