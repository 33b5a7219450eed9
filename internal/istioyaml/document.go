package istioyaml

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/strictyaml"
)

// document is the decoded content of one YAML document. Lines count from 0, so that it stays valid when the document
// moves within its file.
type document struct {
	line     int // in the file; 0 if it is in none yet
	objects  []*snapshot.Object
	broken   []Broken
	skipped  []skipped
	findings []finding.Finding
}

// at returns the document with its position in a file; the same pointer if that is unchanged.
func (d *document) at(file string, line int) *document {
	if d.line == line {
		return d
	}
	moved := *d
	moved.line, moved.objects = line, make([]*snapshot.Object, len(d.objects))
	for i, o := range d.objects {
		origin := o.Origin
		origin.Source, origin.File, origin.Line = snapshot.SourceFile, file, origin.Line-d.line+line
		moved.objects[i] = o.At(origin)
	}
	return &moved
}

// skipped is a document that does not concern Isthmus.
type skipped struct {
	what string
	line int
}

// decodeDocument decodes the text between two markers, usually one object or a List. A failure affects only this
// document.
func decodeDocument(text []byte, validate Validator) (d *document) {
	defer func() {
		if fault := recover(); fault != nil {
			d = lost(text, faulty(fault))
		}
	}()
	roots, bad := strictyaml.Parse(text)
	if bad != nil {
		return lost(text, *bad)
	}
	d = &document{}
	left := strictyaml.NewBudget()
	for _, root := range roots {
		if root.Kind != yaml.MappingNode {
			d.nothing(root, text)
			continue
		}
		for _, item := range items(root) {
			d.add(item, left, validate)
		}
	}
	return d
}

func faulty(fault any) finding.Finding {
	return finding.New("ISM0202", kind.Key{}, "",
		fmt.Sprintf("Isthmus fails on it: %v", fault),
		"this is a fault of Isthmus: report it with the document, and write the document otherwise meanwhile")
}

// nothing handles a document that is not an object. If it mentions security kinds, it probably should have been.
func (d *document) nothing(root *yaml.Node, text []byte) {
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return
	}
	if !securityWord.Match(comment.ReplaceAll(text, nil)) {
		d.noObject(root.Line - 1)
		return
	}
	d.merge(lost(text, finding.New(finding.Syntax, kind.Key{}, "",
		"the document is "+nodeName(root)+", not an object",
		"begin it with apiVersion, kind and metadata").At("", root.Line-1)))
}

// noObject skips what is not an object. It may be the remains of a valid object, so no object is removed because it is
// missing.
func (d *document) noObject(line int) {
	d.skip(head{}, line)
	d.broken = append(d.broken,
		Broken{Closed: snapshot.Closed{Origin: snapshot.Origin{Line: line}, Reason: "it is no object"}})
}

func (d *document) merge(l *document) {
	d.broken, d.skipped = append(d.broken, l.broken...), append(d.skipped, l.skipped...)
	d.take(l.findings)
}

func nodeName(n *yaml.Node) string {
	if n.Kind == yaml.SequenceNode {
		return "a list"
	}
	return "text"
}

// add decodes one object.
func (d *document) add(n *yaml.Node, left *strictyaml.Budget, validate Validator) {
	line := n.Line - 1
	n = strictyaml.Resolve(n)
	if n == nil || n.Kind != yaml.MappingNode {
		d.skip(head{}, line)
		return
	}
	h := headOf(n)
	if h.twice == "" && h.kind == "" && !h.object && (h.apiVersion == "" || isChart(n)) && !holdsSecurity(n) {
		d.noObject(line)
		return
	}
	if h.twice != "" {
		text, _ := yaml.Marshal(n) // scan the text line by line for what can be known
		d.merge(lost(text, finding.New(finding.DuplicateKey, kind.Key{}, h.twice,
			fmt.Sprintf("the key %q stands twice in this mapping", h.twice),
			"keep one of the two; a second object begins with a line ---").At("", h.twiceLine-1)))
		return
	}
	k, s, why := h.stands()
	if h.hides(s) && holdsSecurity(n) {
		d.hidden(n)
		return
	}
	switch s {
	case standsForeign:
		d.skip(h, line)
		return
	case standsLater:
		d.later(h, line)
		return
	}
	o, doc, findings := h.decode(k, s, n, left, validate, why)
	d.take(findings)
	if o != nil {
		d.objects = append(d.objects, o)
		return
	}
	d.broken = append(d.broken, newBroken(h, s == standsClosing || k.Security(), line, reasonOf(findings),
		selectorOf(doc)))
}

// hidden handles a mapping that contains an object of a security kind in an unexpected place. Which object it is, is
// unknown.
func (d *document) hidden(n *yaml.Node) {
	text, _ := yaml.Marshal(n) // scan the text line by line for what can be known
	l := lost(text, finding.New(finding.Syntax, kind.Key{}, "",
		"something of a security kind stands in here, where no object is looked for",
		"write each object as a document of its own, or as one of the items of a List").At("", n.Line-1))
	for i := range l.broken {
		l.broken[i].Key.Kind, l.broken[i].Key.Name, l.broken[i].Security = "", "", true
	}
	for i := range l.findings {
		l.findings[i].Object = kind.Key{}
	}
	d.merge(l)
}

// isChart reports whether a mapping is a Helm Chart.yaml, which has an apiVersion but is no object.
func isChart(n *yaml.Node) bool {
	has := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if v := n.Content[i+1]; v.Kind == yaml.ScalarNode {
			has[n.Content[i].Value] = v.Value
		}
	}
	return (has["apiVersion"] == "v1" || has["apiVersion"] == "v2") && has["name"] != "" && has["version"] != ""
}

// take keeps a limited number of findings, errors first.
func (d *document) take(findings []finding.Finding) {
	d.findings = append(d.findings, findings...)
	if len(d.findings) > MaxFindings {
		finding.Sort(d.findings)
		d.findings = d.findings[:MaxFindings]
	}
}

// items returns the objects of a List, as kubectl and the API write it, also of a List in a List, or the one object
// itself. The items of a list of one kind (ServiceList) need not say theirs.
func items(root *yaml.Node) []*yaml.Node { return itemsAt(root, 0) }

func itemsAt(root *yaml.Node, depth int) []*yaml.Node {
	h := headOf(root)
	one, isList := strings.CutSuffix(h.kind, "List")
	if !isList || h.twice != "" || depth > maxLists {
		return []*yaml.Node{root}
	}
	var list *yaml.Node
	n := 0
	each(root, func(key string, _ int, v *yaml.Node) {
		if key == "items" {
			list = v
			n++
		}
	})
	if n != 1 || list.Kind != yaml.SequenceNode {
		return []*yaml.Node{root}
	}
	out := make([]*yaml.Node, 0, len(list.Content))
	for _, item := range list.Content {
		in := strictyaml.Resolve(item)
		switch {
		case in == nil || in.Kind != yaml.MappingNode:
			out = append(out, item)
		case one != "":
			out = append(out, withHead(in, h.apiVersion, one))
		case item.Kind == yaml.AliasNode: // a List that refers to an outer one would not end
			out = append(out, item)
		default:
			out = append(out, itemsAt(item, depth+1)...)
		}
	}
	return out
}

// withHead returns an item with apiVersion and kind set.
func withHead(n *yaml.Node, apiVersion, kind string) *yaml.Node {
	h := headOf(n)
	out := *n
	out.Content = n.Content[:len(n.Content):len(n.Content)]
	for _, f := range []struct{ key, has, want string }{
		{"apiVersion", h.apiVersion, apiVersion},
		{"kind", h.kind, kind},
	} {
		if f.has == "" && h.twice == "" && h.misspelt == "" {
			out.Content = append(out.Content, scalar(f.key, n.Line), scalar(f.want, n.Line))
		}
	}
	return &out
}

func scalar(value string, line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Style: yaml.DoubleQuotedStyle, Line: line}
}

// Pick extracts the wanted objects of a text, as documents that Decode decodes to the same objects.
func Pick(text []byte, wanted func(snapshot.Key) bool) []byte {
	var out bytes.Buffer
	for _, c := range split(text) {
		pickFrom(&out, c.text, wanted)
	}
	return out.Bytes()
}

func pickFrom(out *bytes.Buffer, text []byte, wanted func(snapshot.Key) bool) {
	defer func() { _ = recover() }() // decodeDocument has reported it
	roots, bad := strictyaml.Parse(text)
	if bad != nil {
		return
	}
	left := strictyaml.NewBudget()
	for _, root := range roots {
		for _, item := range items(root) {
			n := strictyaml.Resolve(item)
			if n == nil || n.Kind != yaml.MappingNode {
				continue
			}
			if key := headOf(n).key(); !wanted(key) {
				continue
			}
			var r strictyaml.Report
			if data, err := json.Marshal(r.Value(n, left)); err == nil && len(r.Findings) == 0 {
				out.WriteString("---\n")
				out.Write(ascii(data))
				out.WriteString("\n")
			}
		}
	}
}

// ascii escapes non-ASCII characters in JSON, so that none is mistaken for a hidden one.
func ascii(data []byte) []byte {
	var out bytes.Buffer
	for _, r := range string(data) {
		switch {
		case r < 0x7f:
			out.WriteByte(byte(r))
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.Bytes()
}
