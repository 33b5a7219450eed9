package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"sigs.k8s.io/yaml"
)

// output is a format of answers.
type output string

const (
	formatTable output = "table"
	formatWide  output = "wide"
	formatJSON  output = "json"
	formatYAML  output = "yaml"
)

var formats = []string{"table", "wide", "json", "yaml"}

func (o *output) String() string { return string(*o) }
func (o *output) Type() string   { return "format" }

// Set takes a flag's value.
func (o *output) Set(s string) error {
	if !slices.Contains(formats, s) {
		return fmt.Errorf("%q is none of %s", s, strings.Join(formats, ", "))
	}
	*o = output(s)
	return nil
}

// print writes an answer: as data when asked for, else as the text that view makes of it.
func (a *app) print(v any, view func(when) string) error {
	text, err := a.render(v, view)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(a.Out, text)
	return err
}

func (a *app) render(v any, view func(when) string) (string, error) {
	switch a.output {
	case formatJSON:
		b, err := json.MarshalIndent(v, "", "  ")
		return string(b) + "\n", err
	case formatYAML:
		b, err := yaml.Marshal(v)
		return string(b), err
	}
	return view(when{now: a.Now(), wide: a.output == formatWide}), nil
}

// table is a heading and rows; columns align, the last one runs free.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// String lays the table out. Cells may hold what other machines said, so control characters never reach the terminal.
func (t *table) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{t.head}, t.rows...) {
		cells := make([]string, len(row))
		for i, c := range row {
			cells[i] = clean(c, oneLine)
			if cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush() // a strings.Builder does not fail
	return b.String()
}

// facts lays out "name  value" lines, indented.
func facts(pairs ...[2]string) string {
	width := 0
	for _, p := range pairs {
		width = max(width, len(p[0]))
	}
	var b strings.Builder
	for _, p := range pairs {
		fmt.Fprintf(&b, "  %-*s  %s\n", width, p[0], clean(p[1], oneLine))
	}
	return b.String()
}

const (
	oneLine   = false
	keepLines = true
)

// clean takes out what could move a terminal's cursor or hide text.
func clean(s string, lines bool) string {
	return strings.Map(func(r rune) rune {
		switch {
		case lines && (r == '\n' || r == '\t'):
			return r
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar:
			return '?'
		}
		return r
	}, s)
}

// when writes times: relative for a person, absolute where wide.
type when struct {
	now  time.Time
	wide bool
}

// past is "3m ago", or "never".
func (w when) past(t time.Time) string {
	switch {
	case t.IsZero():
		return "never"
	case w.wide:
		return stamp(t)
	case w.now.Sub(t) < time.Second:
		return "just now" // or a little later: clocks differ
	}
	return short(w.now.Sub(t)) + " ago"
}

// future is "in 42m", or "ended 3m ago".
func (w when) future(t time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case w.wide:
		return stamp(t)
	case t.After(w.now):
		return "in " + short(t.Sub(w.now))
	}
	return "ended " + short(w.now.Sub(t)) + " ago"
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// short is a duration in its largest fitting unit.
func short(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// spoken groups a fingerprint so that two people can read it to each other.
func spoken(hex string) string {
	var b strings.Builder
	for i, r := range hex {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// plural is "1 peer", "2 peers".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
