package schema

import (
	"fmt"
	"slices"
	"strings"

	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

// unknownFields turns unknown paths into findings.
func (c *schema) unknownFields(paths []string) []finding.Finding {
	var findings []finding.Finding
	for _, p := range paths {
		parent, name := cut(p)
		var known []string
		if s := c.at(parent); s != nil {
			for f := range s.Properties {
				known = append(known, f)
			}
		}
		slices.Sort(known)
		findings = append(findings, finding.New(finding.UnknownField, kind.Key{}, p,
			fmt.Sprintf("there is no field %q here", name),
			finding.DidYouMean(name, known)))
	}
	return findings
}

// word turns an API server's error into a finding.
func (c *schema) word(e *field.Error) finding.Finding {
	code, message, remedy := finding.Invalid, detail(e), c.remedy(e.Field)
	switch e.Type {
	case field.ErrorTypeRequired:
		code, message = finding.Required, "the field is missing"
	case field.ErrorTypeTypeInvalid:
		code, message = finding.WrongType, "the value has the wrong type: "+message
	case field.ErrorTypeNotSupported:
		code, message = finding.UnknownValue, fmt.Sprintf("%q is not a value of this field", clip(e.BadValue))
		remedy = "use one of: " + list(e.Detail)
	case field.ErrorTypeTooMany, field.ErrorTypeTooLong:
		message = "too much: " + message
	default:
		if strings.HasPrefix(message, "should ") {
			message = fmt.Sprintf("%q is refused: it %s", clip(e.BadValue), message)
		}
	}
	return finding.New(code, kind.Key{}, e.Field, message, remedy)
}

// detail returns the error's text without the path, which the finding has already.
func detail(e *field.Error) string {
	d := strings.TrimPrefix(e.Detail, e.Field+" in body ")
	return strings.ReplaceAll(d, e.Field+" in body", "it")
}

// list returns the values of `supported values: "A", "B"`.
func list(detail string) string {
	return strings.ReplaceAll(strings.TrimPrefix(detail, "supported values: "), `"`, "")
}

// remedy returns how to write a field, by its description: "write bundle: where the peer's roots come from".
func (c *schema) remedy(path string) string {
	s := c.at(path)
	if s == nil || s.Description == "" {
		return "see the kind's page in docs/kinds"
	}
	_, name := cut(path)
	name, _, _ = strings.Cut(name, "[")
	return "write " + name + ": " + phrase(name, strings.Fields(s.Description))
}

// phrase returns the words of a description after the field's name: "Bundle is where the roots come from" becomes
// "where the roots come from", "Port of the service" becomes "the port of the service".
func phrase(name string, words []string) string {
	switch {
	case len(words) < 2 || !strings.EqualFold(words[0], name):
		return strings.Join(words, " ")
	case slices.Contains([]string{"is", "are", "lists"}, words[1]):
		return strings.Join(words[2:], " ")
	}
	return "the " + name + " " + strings.Join(words[1:], " ")
}

// at returns the schema of a path, or nil.
func (c *schema) at(path string) *structural.Structural {
	s := c.structural
	for path != "" && s != nil {
		if path[0] == '[' {
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return nil
			}
			path = path[end+1:]
			switch {
			case s.Items != nil:
				s = s.Items
			case s.AdditionalProperties != nil && s.AdditionalProperties.Structural != nil:
				s = s.AdditionalProperties.Structural
			default:
				return nil
			}
			continue
		}
		path = strings.TrimPrefix(path, ".")
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		next, ok := s.Properties[path[:end]]
		if !ok {
			return nil
		}
		s, path = &next, path[end:]
	}
	return s
}

// cut splits a path into its parent and its last name.
func cut(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '.')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

func clip(v any) string {
	s := fmt.Sprint(v)
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:77], "") + "…"
	}
	return s
}
