package strictyaml

import (
	"cmp"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"isthmus.dev/isthmus/internal/finding"
)

// Problem is a fault of a settings file.
type Problem struct {
	File    string
	Line    int // 0 if it does not concern one line
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

// Join joins problems into one error, ordered by line; nil if there are none.
func Join(problems []Problem) error {
	slices.SortStableFunc(problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	errs := make([]error, len(problems))
	for i, p := range problems {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// Settings is a decoded settings file.
type Settings struct {
	File  string
	lines map[string]int // by field
}

// Problem returns a fault of a field, at its line or that of its nearest enclosing field.
func (s Settings) Problem(field, message, remedy string) Problem {
	return Problem{File: s.File, Line: lineOf(field, s.lines), Field: field, Message: message, Remedy: remedy}
}

// ReadSettings decodes the single document of a file into a struct with yaml tags. An empty text leaves the struct
// unchanged. The error joins one Problem for each fault.
func ReadSettings(file string, text []byte, into any) (Settings, error) {
	s := Settings{File: file, lines: map[string]int{}}
	roots, bad := Parse(text)
	switch {
	case bad != nil:
		return s, s.errorOf(*bad)
	case len(roots) == 0:
		return s, nil
	case len(roots) > 1:
		return s, Problem{
			File: file, Line: roots[1].Line, Message: "the file holds more than one document",
			Remedy: "keep one of them",
		}
	}
	root := roots[0]
	var r Report
	v := r.Value(root, NewBudget())
	for field, line := range r.Lines {
		s.lines[field] = root.Line + line
	}
	if len(r.Findings) == 0 {
		r.Fits(ShapeOf(reflect.TypeOf(into), "yaml"), "", v)
	}
	if len(r.Findings) > 0 {
		return s, s.errorOf(r.Findings...)
	}
	if err := root.Decode(into); err != nil {
		return s, s.Problem("", err.Error(), "compare with the page on this file in docs")
	}
	return s, nil
}

func (s Settings) errorOf(findings ...finding.Finding) error {
	problems := make([]Problem, len(findings))
	for i, f := range findings {
		problems[i] = Problem{File: s.File, Line: f.Line + 1, Field: f.Field, Message: f.Message, Remedy: f.Remedy}
	}
	return Join(problems)
}
