package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/yaml"
)

// output is an output format.
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

// Set implements pflag.Value.
func (o *output) Set(s string) error {
	if !slices.Contains(formats, s) {
		return fmt.Errorf("%q is none of %s", s, strings.Join(formats, ", "))
	}
	*o = output(s)
	return nil
}

// print writes an answer as data if requested, else as the text that view returns.
func (a *app) print(v any, view func(when) string) error {
	text, err := a.render(v, view)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(a.Out, text)
	return err
}

func (a *app) render(v any, view func(when) string) (string, error) {
	if a.output == formatJSON || a.output == formatYAML {
		v = withLists(v)
	}
	switch a.output {
	case formatJSON:
		b, err := json.MarshalIndent(v, "", "  ")
		return escaped(string(b)) + "\n", err
	case formatYAML:
		return marshalYAML(v)
	}
	return view(when{now: a.Now(), wide: a.output == formatWide}), nil
}

// withLists copies an answer and replaces null lists by empty ones, so that consumers need not handle both.
func withLists(v any) any {
	in := reflect.ValueOf(v)
	out := reflect.New(in.Type()).Elem()
	out.Set(in)
	fillLists(out)
	return out.Interface()
}

func fillLists(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			to := reflect.New(v.Type().Elem())
			to.Elem().Set(v.Elem())
			fillLists(to.Elem())
			v.Set(to)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Field(i); f.CanSet() {
				fillLists(f)
			}
		}
	case reflect.Slice:
		all := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		reflect.Copy(all, v)
		for i := range all.Len() {
			fillLists(all.Index(i))
		}
		if v.Type().Elem().Kind() != reflect.Uint8 { // byte slices are text
			v.Set(all)
		}
	}
}

// marshalYAML encodes YAML and escapes characters that move the cursor or hide text.
func marshalYAML(v any) (string, error) {
	b, err := yaml.Marshal(v)
	if err == nil && !bytes.ContainsFunc(b, isHidden) { // Marshal fails for text with such characters
		return string(b), nil
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	var data any
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&data); err != nil {
		return "", err
	}
	var out strings.Builder
	enc := yamlv3.NewEncoder(&out)
	enc.SetIndent(2)
	enc.CompactSeqIndent()
	err = errors.Join(enc.Encode(yamlNode(data)), enc.Close())
	return escaped(out.String()), err
}

// yamlNode converts decoded JSON to a YAML node and quotes what must be escaped.
func yamlNode(v any) *yamlv3.Node {
	n := &yamlv3.Node{Kind: yamlv3.ScalarNode, Tag: "!!str"}
	switch v := v.(type) {
	case map[string]any:
		n.Kind, n.Tag = yamlv3.MappingNode, "!!map"
		for _, k := range slices.Sorted(maps.Keys(v)) {
			n.Content = append(n.Content, yamlNode(k), yamlNode(v[k]))
		}
	case []any:
		n.Kind, n.Tag = yamlv3.SequenceNode, "!!seq"
		for _, item := range v {
			n.Content = append(n.Content, yamlNode(item))
		}
	case string:
		if n.Value = v; strings.ContainsFunc(v, isHidden) {
			n.Style = yamlv3.DoubleQuotedStyle
		}
	case nil:
		n.Tag, n.Value = "!!null", "null"
	default: // a number or boolean
		n.Tag, n.Value = "", fmt.Sprint(v)
	}
	return n
}

// escaped escapes characters that move the cursor or hide text, in JSON or quoted YAML. Line breaks stay.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\n' || !isHidden(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// isHidden reports whether a character could move the cursor or hide text.
func isHidden(r rune) bool {
	return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp))
}

// table has a heading and rows. Columns are aligned except the last.
type table struct {
	head []string
	rows [][]string
}

func newTable(head ...string) *table { return &table{head: head} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

// String formats the table. Control characters are removed, since cells may contain text from other machines.
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

// facts formats indented "name  value" lines.
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

// clean removes characters that could move the cursor or hide text.
func clean(s string, lines bool) string {
	return strings.Map(func(r rune) rune {
		switch {
		case lines && (r == '\n' || r == '\t'):
			return r
		case r == '\n' || r == '\t':
			return ' '
		case isHidden(r) || r == unicode.ReplacementChar:
			return '?'
		}
		return r
	}, s)
}

// when formats times: relative, or absolute in wide output.
type when struct {
	now  time.Time
	wide bool
}

// past returns "3m ago", or "never".
func (w when) past(t time.Time) string {
	switch {
	case t.IsZero():
		return "never"
	case w.wide:
		return formatTime(t)
	case w.now.Sub(t) < time.Second:
		return "just now" // slightly later times occur because clocks differ
	}
	return short(w.now.Sub(t)) + " ago"
}

// future returns "in 42m", or "ended 3m ago".
func (w when) future(t time.Time) string {
	switch {
	case t.IsZero():
		return "-"
	case w.wide:
		return formatTime(t)
	case t.After(w.now):
		return "in " + short(t.Sub(w.now))
	}
	return "ended " + short(w.now.Sub(t)) + " ago"
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// short formats a duration in its largest fitting unit.
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

// groupFingerprint groups the digits of a fingerprint for reading aloud.
func groupFingerprint(hex string) string {
	var b strings.Builder
	for i, r := range hex {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// plural returns "1 peer", "2 peers".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
