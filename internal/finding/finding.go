// Package finding describes what is wrong with the configuration: what, where, and what to do next.
package finding

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/kind"
)

// Severity of a finding. The zero value is the worst, so that an unset severity stands out.
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

// Code identifies a sort of finding. Its meaning never changes.
type Code string

// Finding is one fault or doubt in the configuration. Use New to create it.
type Finding struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"` // that of the code
	// Object is a configuration object, workload, node or proxy. Zero means unknown.
	Object  kind.Key `json:"object"`
	Field   string   `json:"field,omitempty"` // path in the object, such as spec.to[0].peer
	File    string   `json:"file,omitempty"`
	Line    int      `json:"line,omitempty"` // 1-based; 0 means unknown
	Message string   `json:"message"`        // what is wrong
	Remedy  string   `json:"remedy"`         // what to do next
}

// New returns a finding with its code's severity. A remedy replaces the registry's.
func New(code Code, object kind.Key, field, message string, remedy ...string) Finding {
	row := rows[code]
	f := Finding{
		Code: code, Severity: row.Severity, Object: object, Field: field, Message: message, Remedy: row.Remedy,
	}
	if len(remedy) > 0 {
		f.Remedy = remedy[0]
	}
	return f
}

// NotInForce reports whether the finding concerns something that is written but not in effect.
func (f Finding) NotInForce() bool { return rows[f.Code].NotInForce }

// At sets the finding's file and line. snapshot.Config.Report does so for objects that are in effect.
func (f Finding) At(file string, line int) Finding {
	f.File, f.Line = file, line
	return f
}

// String returns the one-line form: "ISM0103 error samples/x.yaml:12 FederatedExport default/payments spec.to[0].peer:
// … Fix: …".
func (f Finding) String() string {
	s := f.Heading()
	if f.Field != "" {
		s += " " + f.Field
	}
	s += ": " + f.Message
	if f.Remedy != "" {
		s += " Fix: " + f.Remedy
	}
	return s
}

// Heading returns what the finding is about: "ISM0103 error samples/x.yaml:12 FederatedExport default/payments".
func (f Finding) Heading() string {
	s := string(f.Code) + " " + f.Severity.String()
	if f.File != "" {
		s += " " + f.File
		if f.Line > 0 {
			s += fmt.Sprintf(":%d", f.Line)
		}
	}
	if f.Object != (kind.Key{}) {
		s += " " + f.Object.String()
	}
	return s
}

// Abbreviate joins names for a message: sorted, without duplicates, at most five.
func Abbreviate(names []string) string {
	const few = 5
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

// Sort sorts findings in place by severity, file, line, object, field and code.
func Sort(fs []Finding) {
	slices.SortFunc(fs, func(a, b Finding) int {
		if a.Severity != b.Severity || a.File != b.File || a.Line != b.Line { // what decides nearly always
			return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
		}
		return cmp.Or(a.Object.Compare(b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Code, b.Code))
	})
}
