package schema

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
)

// Field is one field of a kind's spec, for the documentation.
type Field struct {
	Path     string // spec.to[].peer
	Type     string // string, integer, list of string, …
	Required bool
	Doc      string
	Limits   string // allowed values
}

// Fields lists the fields of a kind's spec, parents before children.
func (s *Schemas) Fields(kindName string) ([]Field, error) {
	get, ok := s.byKind[kindName]
	if !ok {
		return nil, fmt.Errorf("list fields: %s is not a kind of Isthmus's own", kindName)
	}
	c, err := get()
	if err != nil {
		return nil, err
	}
	spec := c.structural.Properties["spec"]
	return fieldsOf("spec", &spec), nil
}

func fieldsOf(path string, s *structural.Structural) []Field {
	var required []string
	if s.ValueValidation != nil {
		required = s.ValueValidation.Required
	}
	var out []Field
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		p := s.Properties[name]
		f := Field{
			Path: path + "." + name, Type: p.Type, Required: slices.Contains(required, name),
			Doc: strings.Join(strings.Fields(p.Description), " "), Limits: limits(&p),
		}
		inner := &p
		if p.Items != nil {
			f.Type, inner = "list of "+p.Items.Type, p.Items
			f.Limits = strings.Trim(f.Limits+", each "+limits(p.Items), ", ")
			f.Limits = strings.TrimSuffix(f.Limits, ", each")
		}
		out = append(out, f)
		next := f.Path
		if p.Items != nil {
			next += "[]"
		}
		out = append(out, fieldsOf(next, inner)...)
	}
	return out
}

// limits describes the values that a schema allows.
func limits(s *structural.Structural) string {
	v := s.ValueValidation
	if v == nil {
		return ""
	}
	var words []string
	if len(v.Enum) > 0 {
		var values []string
		for _, e := range v.Enum {
			values = append(values, fmt.Sprint(e.Object))
		}
		words = append(words, strings.Join(values, ", "))
	}
	if v.Minimum != nil && v.Maximum != nil {
		words = append(words, fmt.Sprintf("%v to %v", *v.Minimum, *v.Maximum))
	}
	switch {
	case v.MinItems != nil && v.MaxItems != nil:
		words = append(words, fmt.Sprintf("%d to %d items", *v.MinItems, *v.MaxItems))
	case v.MaxItems != nil:
		words = append(words, fmt.Sprintf("at most %d items", *v.MaxItems))
	}
	if v.MaxLength != nil {
		words = append(words, fmt.Sprintf("at most %d characters", *v.MaxLength))
	}
	if v.Pattern != "" {
		words = append(words, "pattern `"+v.Pattern+"`")
	}
	if v.Format != "" && s.Type == "string" {
		words = append(words, v.Format)
	}
	return strings.Join(words, ", ")
}
