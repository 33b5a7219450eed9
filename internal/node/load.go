package node

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Problem is one fault of a configuration file.
type Problem struct {
	File    string
	Line    int // 0 when it is not about one line
	Field   string
	Message string
	Remedy  string
}

// Error returns "file:line: field: message. Fix: remedy".
func (p Problem) Error() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d", p.Line)
	}
	if p.Field != "" {
		s += ": " + p.Field
	}
	return s + ": " + p.Message + ". Fix: " + p.Remedy
}

// LoadConfig reads an agent's configuration file, applies defaults and refuses anything unknown or wrong. The error
// joins one Problem for each fault.
func LoadConfig(path string) (Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read agent configuration: %w", err)
	}
	return parseConfig(path, text)
}

func parseConfig(path string, text []byte) (Config, error) {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return Config{}, Problem{
				File: path, Message: "the file is empty",
				Remedy: "write at least name, control and workloads (or gateway)",
			}
		}
		return Config{}, Problem{
			File: path, Message: strings.TrimPrefix(err.Error(), "yaml: "), Remedy: "correct the YAML",
		}
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return Config{}, Problem{
			File: path, Message: "the file holds more than one document", Remedy: "keep one agent per file",
		}
	}
	r := reader{file: path, lines: map[string]int{}}
	r.check(doc.Content[0], reflect.TypeFor[Config](), "")
	var c Config
	if len(r.problems) == 0 {
		if err := doc.Decode(&c); err != nil { // cannot happen: every value was decoded by itself
			return Config{}, Problem{File: path, Message: err.Error(), Remedy: "correct the YAML"}
		}
	}
	if len(r.problems) > 0 {
		return Config{}, r.err()
	}
	c.defaults()
	c.validate(&r)
	return c, r.err()
}

// reader collects problems and remembers on which line each field stands.
type reader struct {
	file     string
	lines    map[string]int
	problems []Problem
}

func (r *reader) add(field, message, remedy string) {
	r.problems = append(r.problems, Problem{
		File: r.file, Line: r.line(field), Field: field, Message: message, Remedy: remedy,
	})
}

// line returns the line of a field, or of its nearest enclosing one.
func (r *reader) line(field string) int {
	for field != "" {
		if l, ok := r.lines[field]; ok {
			return l
		}
		field = field[:max(0, strings.LastIndexAny(field, ".["))]
	}
	return 0
}

func (r *reader) err() error {
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	errs := make([]error, len(r.problems))
	for i, p := range r.problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// check walks the YAML along with its type, and refuses fields that the type does not have.
func (r *reader) check(n *yaml.Node, t reflect.Type, path string) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.AliasNode:
		r.add(path, "YAML aliases are not read here", "write the value out")
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		r.checkFields(n, t, path)
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, item := range n.Content {
			p := fmt.Sprintf("%s[%d]", path, i)
			r.lines[p] = item.Line
			r.check(item, t.Elem(), p)
		}
	default:
		r.checkValue(n, t, path)
	}
}

// checkValue refuses a value that does not fit its field.
func (r *reader) checkValue(n *yaml.Node, t reflect.Type, path string) {
	err := n.Decode(reflect.New(t).Interface())
	if err == nil {
		return
	}
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	var te *yaml.TypeError
	if errors.As(err, &te) {
		_, message, _ = strings.Cut(te.Errors[0], ": ") // without its line
	}
	r.add(path, message, "write a value of the right type")
}

func (r *reader) checkFields(n *yaml.Node, t reflect.Type, path string) {
	known := fieldsOf(t)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		field := strings.TrimPrefix(path+"."+key.Value, ".")
		r.lines[field] = key.Line
		ft, ok := known[key.Value]
		switch {
		case !ok:
			names := make([]string, 0, len(known))
			for name := range known {
				names = append(names, name)
			}
			slices.Sort(names)
			r.add(field, "there is no such field", "remove it, or use one of: "+strings.Join(names, ", "))
		case seen[key.Value]:
			r.add(field, "the field is given twice", "remove one of them")
		default:
			seen[key.Value] = true
			r.check(n.Content[i+1], ft, field)
		}
	}
}

func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("yaml"); name != "" && name != "-" {
			fields[name] = t.Field(i).Type
		}
	}
	return fields
}
