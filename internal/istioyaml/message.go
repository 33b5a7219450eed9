package istioyaml

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"isthmus.dev/isthmus/internal/finding"
)

// fitsMessage checks a JSON value against a protobuf message, field by field, more strictly than protojson: names as
// documented, enum values by name, numbers as numbers, and nothing written empty, since in a policy "principals:" with
// nothing behind it would mean "anybody".
func (r *report) fitsMessage(md protoreflect.MessageDescriptor, path string, v any) {
	if strings.HasPrefix(string(md.FullName()), "google.protobuf.") {
		return // protojson decides
	}
	m, ok := v.(map[string]any)
	if !ok {
		r.wrongType(path, "a mapping", v)
		return
	}
	oneofs := map[protoreflect.Name]string{}
	for _, k := range sortedKeys(m) {
		p := finding.Child(path, k)
		fd := md.Fields().ByJSONName(k)
		if fd == nil {
			r.unknownField(p, k, fieldNames(md))
			continue
		}
		if one := fd.ContainingOneof(); one != nil && !one.IsSynthetic() {
			if other, twice := oneofs[one.Name()]; twice {
				r.refuse(finding.Invalid, p,
					fmt.Sprintf("%s and %s exclude each other", other, k),
					"keep one of the two")
			}
			oneofs[one.Name()] = k
		}
		r.fitsField(fd, p, m[k])
	}
}

func (r *report) fitsField(fd protoreflect.FieldDescriptor, path string, v any) {
	switch {
	case v == nil:
		r.refuse(finding.WrongType, path, "nothing is written here", "write a value, or remove the line")
	case fd.IsMap():
		m, ok := v.(map[string]any)
		if !ok {
			r.wrongType(path, "a mapping", v)
		}
		for _, k := range sortedKeys(m) {
			r.fitsSingle(fd.MapValue(), finding.Child(path, k), m[k])
		}
	case fd.IsList():
		list, ok := v.([]any)
		if !ok {
			r.wrongType(path, "a list", v)
		}
		for i, item := range list {
			r.fitsSingle(fd, fmt.Sprintf("%s[%d]", path, i), item)
		}
	default:
		r.fitsSingle(fd, path, v)
	}
}

func (r *report) fitsSingle(fd protoreflect.FieldDescriptor, path string, v any) {
	if v == nil {
		r.refuse(finding.WrongType, path, "nothing is written here", "write a value, or remove the line")
		return
	}
	switch fd.Kind() {
	case protoreflect.MessageKind:
		r.fitsMessage(fd.Message(), path, v)
	case protoreflect.EnumKind:
		r.fitsEnum(fd.Enum(), path, v)
	case protoreflect.StringKind, protoreflect.BytesKind:
		if _, ok := v.(string); !ok {
			r.wrongType(path, "text", v)
		}
	case protoreflect.BoolKind:
		if _, ok := v.(bool); !ok {
			r.wrongType(path, "true or false", v)
		}
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if _, ok := v.(float64); !ok {
			if _, ok := v.(int64); !ok {
				r.wrongType(path, "a number", v)
			}
		}
	default:
		r.fitsWhole(fd.Kind(), path, v)
	}
}

func (r *report) fitsWhole(k protoreflect.Kind, path string, v any) {
	i, ok := v.(int64)
	if !ok {
		r.wrongType(path, "a whole number", v)
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
		r.refuse(finding.Invalid, path,
			fmt.Sprintf("%d is out of range", i), fmt.Sprintf("write a number from %d to %d", low, high))
	}
}

func (r *report) fitsEnum(ed protoreflect.EnumDescriptor, path string, v any) {
	name, ok := v.(string)
	if !ok {
		r.wrongType(path, "text", v)
		return
	}
	if ed.Values().ByName(protoreflect.Name(name)) == nil {
		r.refuse(finding.UnknownValue, path,
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
