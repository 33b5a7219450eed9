// Package finding is what Isthmus says about configuration that is wrong: what, where, and what to do next.
package finding

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Severity of a finding. The zero value is the worst, so that a forgotten severity is loud.
type Severity int

// The severities, worst first.
const (
	Error Severity = iota
	Warning
	Info
)

func (s Severity) String() string { return [...]string{"error", "warning", "info"}[s] }

// MarshalText writes the severity as its name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a severity's name.
func (s *Severity) UnmarshalText(text []byte) error {
	for v := Error; v <= Info; v++ {
		if v.String() == string(text) {
			*s = v
			return nil
		}
	}
	return fmt.Errorf("unknown severity %q", text)
}

// Finding is one thing that is wrong or doubtful in the configuration.
type Finding struct {
	Code     string   `json:"code"` // stable, for example ISM0103
	Severity Severity `json:"severity"`
	Object   string   `json:"object"`          // Kind namespace/name, empty when the file could not be read so far
	Field    string   `json:"field,omitempty"` // path inside the object, for example spec.to[0].peer
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"` // 1-based, 0 when unknown
	Message  string   `json:"message"`        // what is wrong
	Remedy   string   `json:"remedy"`         // what to do next
}

// String is the one-line form: "ISM0103 error samples/x.yaml:12 FederatedExport default/payments spec.to[0].peer: … Fix: …".
func (f Finding) String() string {
	s := f.Code + " " + f.Severity.String()
	if f.File != "" {
		s += " " + f.File
		if f.Line > 0 {
			s += fmt.Sprintf(":%d", f.Line)
		}
	}
	if f.Object != "" {
		s += " " + f.Object
	}
	if f.Field != "" {
		s += " " + f.Field
	}
	s += ": " + f.Message
	if f.Remedy != "" {
		s += " Fix: " + f.Remedy
	}
	return s
}

// Few is the beginning of a list of names, for a message.
func Few(names []string) string {
	const few = 5
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

// Sort orders findings by severity, file, line, object, field and code, in place.
func Sort(fs []Finding) {
	slices.SortFunc(fs, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Code, b.Code))
	})
}
