package istioyaml

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"isthmus.dev/isthmus/internal/finding"
)

// nothingWritten is the remedy for a field without a value, often because what belongs to it is not indented.
const nothingWritten = "write a value, or remove the line; what belongs to it on the next lines must be indented deeper"

// fitsMessage checks a JSON value against a protobuf message, field by field. It is stricter than protojson: documented
// field names only, enums by name, numbers as numbers, and no empty values, since in a policy "principals:" without a
// value would mean "anybody". It returns the value in the form that protojson accepts, which differs for durations.
func (r *report) fitsMessage(md protoreflect.MessageDescriptor, path string, v any) any {
	switch md.FullName() {
	case "google.protobuf.Duration":
		return r.fitsDuration(path, v)
	case "google.protobuf.BoolValue", "google.protobuf.StringValue", "google.protobuf.BytesValue",
		"google.protobuf.Int32Value", "google.protobuf.UInt32Value", "google.protobuf.Int64Value",
		"google.protobuf.UInt64Value", "google.protobuf.FloatValue", "google.protobuf.DoubleValue":
		return r.fitsSingle(md.Fields().ByName("value"), path, v)
	}
	if md.FullName().Parent() == "google.protobuf" {
		return v // left to protojson
	}
	m, ok := v.(map[string]any)
	if !ok {
		r.WrongType(path, "a mapping", v)
		return v
	}
	oneofs := map[protoreflect.Name]string{}
	for _, k := range sortedKeys(m) {
		p := finding.Child(path, k)
		fd := md.Fields().ByJSONName(k)
		if fd == nil {
			r.UnknownField(p, k, fieldNames(md))
			continue
		}
		if one := fd.ContainingOneof(); one != nil && !one.IsSynthetic() {
			if other, twice := oneofs[one.Name()]; twice {
				r.Refuse(finding.Invalid, p,
					fmt.Sprintf("%s and %s exclude each other", other, k),
					"keep one of the two")
			}
			oneofs[one.Name()] = k
		}
		m[k] = r.fitsField(fd, p, m[k])
	}
	return m
}

func (r *report) fitsField(fd protoreflect.FieldDescriptor, path string, v any) any {
	switch {
	case v == nil:
		r.Refuse(finding.WrongType, path, "nothing is written here", nothingWritten)
	case fd.IsMap():
		m, ok := v.(map[string]any)
		if !ok {
			r.WrongType(path, "a mapping", v)
		}
		for _, k := range sortedKeys(m) {
			m[k] = r.fitsSingle(fd.MapValue(), finding.Child(path, k), m[k])
		}
	case fd.IsList():
		list, ok := v.([]any)
		if !ok {
			r.WrongType(path, "a list", v)
		}
		for i, item := range list {
			list[i] = r.fitsSingle(fd, fmt.Sprintf("%s[%d]", path, i), item)
		}
	default:
		return r.fitsSingle(fd, path, v)
	}
	return v
}

func (r *report) fitsSingle(fd protoreflect.FieldDescriptor, path string, v any) any {
	if v == nil {
		r.Refuse(finding.WrongType, path, "nothing is written here", nothingWritten)
		return v
	}
	switch fd.Kind() {
	case protoreflect.MessageKind:
		return r.fitsMessage(fd.Message(), path, v)
	case protoreflect.EnumKind:
		r.fitsEnum(fd.Enum(), path, v)
	case protoreflect.StringKind, protoreflect.BytesKind:
		if _, ok := v.(string); !ok {
			r.WrongType(path, "text", v)
		}
	case protoreflect.BoolKind:
		if _, ok := v.(bool); !ok {
			r.WrongType(path, "true or false", v)
		}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if _, ok := v.(float64); !ok {
			if _, ok := v.(int64); !ok {
				r.WrongType(path, "a number", v)
			}
		}
	default:
		r.fitsWhole(fd.Kind(), path, v)
	}
	return v
}

// fitsDuration parses a duration in Go's notation, as Istio does ("500ms", "1m30s"), and converts it to protojson's
// form: seconds.
func (r *report) fitsDuration(path string, v any) any {
	d, ok := r.Duration(path, v)
	if !ok {
		return v
	}
	sign := ""
	if d < 0 {
		sign = "-"
	}
	seconds, nanoseconds := d/time.Second, d%time.Second
	return fmt.Sprintf("%s%d.%09ds", sign, max(seconds, -seconds), max(nanoseconds, -nanoseconds))
}

func (r *report) fitsWhole(k protoreflect.Kind, path string, v any) {
	i, ok := v.(int64)
	if !ok {
		r.WrongType(path, "a whole number", v)
		return
	}
	low, high := int64(-1<<63), int64(1<<63-1)
	switch k {
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		low, high = 0, 1<<32-1
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		low = 0
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		low, high = -1<<31, 1<<31-1
	}
	if i < low || i > high {
		r.Refuse(finding.Invalid, path,
			fmt.Sprintf("%d is out of range", i), fmt.Sprintf("write a number from %d to %d", low, high))
	}
}

func (r *report) fitsEnum(ed protoreflect.EnumDescriptor, path string, v any) {
	name, ok := v.(string)
	if !ok {
		r.WrongType(path, "text", v)
		return
	}
	if ed.Values().ByName(protoreflect.Name(name)) == nil {
		r.Refuse(finding.UnknownValue, path,
			fmt.Sprintf("%q is not a value of this field", finding.Clip(name)),
			finding.DidYouMean(name, enumNames(ed)))
	}
}

func fieldNames(md protoreflect.MessageDescriptor) []string {
	names := make([]string, md.Fields().Len())
	for i := range names {
		names[i] = md.Fields().Get(i).JSONName()
	}
	return names
}

func enumNames(ed protoreflect.EnumDescriptor) []string {
	names := make([]string, ed.Values().Len())
	for i := range names {
		names[i] = string(ed.Values().Get(i).Name())
	}
	return names
}
