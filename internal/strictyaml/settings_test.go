package strictyaml

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

type sample struct {
	Name   string            `yaml:"name"`
	Rest   *time.Duration    `yaml:"rest"`
	At     []netip.Addr      `yaml:"at"`
	Labels map[string]string `yaml:"labels"`
	Inner  *inner            `yaml:"inner"`
	Hidden int               `yaml:"-"`
}

type inner struct {
	On    bool    `yaml:"on"`
	Port  uint16  `yaml:"port"`
	Share float64 `yaml:"share"`
}

func TestReadSettings(t *testing.T) {
	rest := 90 * time.Second
	got := sample{Name: "before"}
	s, err := ReadSettings("a.yaml", []byte(`# a comment
rest: 1m30s
at: [&a 10.0.0.1, *a, "fd00::1"]
labels: {app: web, "kubernetes.io/name": x}
inner:
  on: true
  port: 8080
  share: 1
`), &got)
	want := sample{
		Name: "before", Rest: &rest, Labels: map[string]string{"app": "web", "kubernetes.io/name": "x"},
		At: []netip.Addr{
			netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.1"),
			netip.MustParseAddr("fd00::1"),
		},
		Inner: &inner{On: true, Port: 8080, Share: 1},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	for field, line := range map[string]int{
		"inner.port": 7, "inner": 5, "inner.nothing": 5, "labels[kubernetes.io/name]": 4, "at[2]": 3, "name": 0, "": 0,
	} {
		if p := s.Problem(field, "is wrong", "mend it"); p.Line != line {
			t.Errorf("%q is at line %d, want %d", field, p.Line, line)
		}
	}
	if p := s.Problem("inner.port", "is wrong",
		"mend it"); p.Error() != "a.yaml:7: inner.port: is wrong. Fix: mend it" {
		t.Error(p)
	}
	for _, text := range []string{"", "# nothing\n", "---\n", "null\n", "{}"} {
		got := sample{Name: "before"}
		if _, err := ReadSettings("a.yaml", []byte(text), &got); err != nil || got.Name != "before" {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	if _, err := ReadSettings("a.yaml", []byte("rest: 0s\n"), &got); err != nil || *got.Rest != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestReadSettingsRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"nmae: x\n": `a.yaml:1: nmae: there is no field "nmae" here. Fix: did you mean name? It is one of: at, inner, labels, name, rest`,
		"name: x\ninner: {ports: 1}": `a.yaml:2: inner.ports: there is no field "ports" here. ` +
			`Fix: did you mean port? It is one of: on, port, share`,
		"name: x\nname: y\n":       `a.yaml:2: name: the key "name" stands twice in this mapping. Fix: keep one of the two`,
		"name: 5\n":                "a.yaml:1: name: must be text, is a whole number. Fix: put it in quotes",
		"\nat: [10.0.0.1, here]\n": `a.yaml:2: at[1]: "here" is not an IP address. Fix: write an IP address such as "10.0.0.1"`,
		"rest: 5\n":                `a.yaml:1: rest: must be a duration, is a whole number. Fix: write a duration such as "500ms", "90s" or "24h"`,
		"inner: {port: 65536}":     "a.yaml:1: inner.port: 65536 is out of range. Fix: write a number from 0 to 65535",
		"inner: {on: yes}":         "a.yaml:1: inner.on: must be true or false, is text. Fix: write true or false",
		"- a\n":                    "a.yaml:1: must be a mapping, is a list. Fix: write a mapping",
		"name: x\n---\nname: y\n":  "a.yaml:3: the file holds more than one document. Fix: keep one of them",
		"name: [\n": "a.yaml:1: not YAML: did not find expected node content. " +
			"Fix: correct the YAML: check indentation, colons and quotes on this line and the one before",
		"name: x\ninner:\n  on: true\n  share: 1\n port: 5\nat: []\n": "a.yaml:5: not YAML: the indentation of this " +
			"line fits no line above it. Fix: indent it like the lines that it belongs with",
		"name: x\n\tinner: {}\n": "a.yaml:2: not YAML: a tab indents this line. Fix: indent with spaces",
		"name: \"\x00\"\n":       "a.yaml:1: the document holds a NUL byte, so it is not text. Fix: save it as UTF-8 without NUL bytes",
		"name: {<<: {a: b}}": "a.yaml:1: name: a key here is not plain text. " +
			"Fix: write every key as a plain word; merge keys (<<) are not read",
		"labels: " + strings.Repeat("[", 70) + strings.Repeat("]",
			70): "a.yaml:1: labels: the document is nested deeper than 64. Fix: write it plainer, or split it",
		"name: " + strings.Repeat("x", 1<<20): "a.yaml:1: the document has 1048582 bytes, more than 1048576. " +
			"Fix: split it into several documents with a line ---",
	} {
		got := sample{Name: "before"}
		if _, err := ReadSettings("a.yaml", []byte(text), &got); err == nil || err.Error() != want ||
			got.Name != "before" {
			t.Errorf("%.60q: %v\nwant %s", text, err, want)
		}
	}
	bomb := "labels: &a0 {k: v}\n"
	for n := range 20 {
		bomb += fmt.Sprintf("l%d: &a%d {x: *a%d, y: *a%d}\n", n, n+1, n, n)
	}
	if _, err := ReadSettings("a.yaml", []byte(bomb), new(sample)); err == nil ||
		!strings.Contains(err.Error(), "the document's aliases repeat more than 1000 values") {
		t.Errorf("aliases of aliases: %v", err)
	}
	_, err := ReadSettings("a.yaml", []byte("inner: {off: true}\nname: 5\nrest: soon\n"), new(sample))
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 3 ||
		!strings.HasPrefix(lines[0], "a.yaml:1: inner.off") ||
		!strings.HasPrefix(lines[2], "a.yaml:3: rest") {
		t.Errorf("three faults are %v", err)
	}
}

// What is read means what any reader of YAML makes of it, and what such a reader knows no field for is refused.
func FuzzReadSettings(f *testing.F) {
	f.Add("name: x\nrest: 5s\nat: [10.0.0.1]\nlabels: {a: b}\ninner: {on: true, port: 1, share: 0.5}\n")
	f.Add("inner: &a {port: 1}\nlabels: *a\n")
	f.Add(`{"name": "\ud83d\ude00"}`)
	f.Add("at: [*x]\n")
	f.Add("rest: 0x5\nname: !!binary aGk=\n")
	f.Fuzz(func(t *testing.T, text string) {
		var got, want sample
		_, err := ReadSettings("a.yaml", []byte(text), &got)
		dec := yaml.NewDecoder(strings.NewReader(text))
		dec.KnownFields(true)
		switch other := dec.Decode(&want); {
		case err != nil:
		case other == nil && !reflect.DeepEqual(got, want):
			t.Errorf("%q is read as %+v, elsewhere as %+v", text, got, want)
		case other != nil && strings.Contains(other.Error(), "not found in type"):
			t.Errorf("%q is read, elsewhere: %v", text, other)
		}
	})
}
