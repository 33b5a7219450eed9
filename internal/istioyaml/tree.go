package istioyaml

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// tree turns the YAML nodes of one object into JSON values and records the line of each field.
type tree struct {
	report
	*budget
	inAlias bool
	halted  bool
}

// budget is how much more one document may hold.
type budget struct {
	nodes   int
	aliased int // what aliases repeat
}

// report gathers findings about one object. Its lines count from 0 at the top of the document.
type report struct {
	object   kind.Key
	line     int            // of the object
	lines    map[string]int // of its fields, counted from its own
	findings []finding.Finding
}

// refuse records what is wrong with a field.
func (r *report) refuse(code finding.Code, field, message, remedy string) {
	r.add([]finding.Finding{finding.New(code, r.object, field, message, remedy)})
}

// add takes over findings about the object.
func (r *report) add(findings []finding.Finding) {
	for _, f := range findings {
		f.Object = r.object
		r.findings = append(r.findings, f.At("", r.lineOf(f.Field)))
	}
}

// lineOf is snapshot.Origin.LineOf.
func (r *report) lineOf(field string) int {
	for f := range snapshot.Enclosing(field) {
		if l, ok := r.lines[f]; ok {
			return r.line + l
		}
	}
	return r.line
}

func newTree(n *yaml.Node, left *budget) *tree {
	t := &tree{budget: left}
	t.line, t.lines = n.Line-1, make(map[string]int, 24)
	return t
}

// value returns the JSON value of a node.
func (t *tree) value(n *yaml.Node, path string, depth int) any {
	t.nodes--
	if t.inAlias {
		t.aliased--
	}
	if t.nodes < 0 || t.aliased < 0 || depth > MaxDepth {
		t.halt(path, depth)
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		return t.mapping(n, path, depth)
	case yaml.SequenceNode:
		list := make([]any, 0, min(len(n.Content), 1024))
		for i, item := range n.Content {
			p := t.mark(path+"["+strconv.Itoa(i)+"]", item.Line)
			list = append(list, t.value(item, p, depth+1))
			if t.halted {
				break
			}
		}
		return list
	case yaml.AliasNode:
		was := t.inAlias
		t.inAlias = true
		v := t.value(n.Alias, path, depth+1)
		t.inAlias = was
		return v
	default:
		return t.scalar(n, path)
	}
}

// halt stops reading what is too large, saying so once.
func (t *tree) halt(path string, depth int) {
	if t.halted {
		return
	}
	t.halted = true
	message := fmt.Sprintf("the document has more than %d values", MaxNodes)
	switch {
	case depth > MaxDepth:
		message = fmt.Sprintf("the document is nested deeper than %d", MaxDepth)
	case t.aliased < 0:
		message = fmt.Sprintf("the document's aliases repeat more than %d values", MaxAliased)
	}
	field, _, _ := strings.Cut(path, "[")
	t.refuse(finding.TooLarge, field, message, "write it plainer, or split it")
}

func (t *tree) mapping(n *yaml.Node, path string, depth int) any {
	m := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content) && !t.halted; i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!null" || k.ShortTag() == "!!merge" {
			t.refuseNode(finding.Syntax, k, path, "a key here is not plain text",
				"write every key as a plain word; merge keys (<<) are not read")
			continue
		}
		p := finding.Child(path, k.Value)
		if _, twice := m[k.Value]; twice {
			t.refuseNode(finding.DuplicateKey, k, p,
				fmt.Sprintf("the key %q stands twice in this mapping", finding.Clip(k.Value)), "keep one of the two")
			continue
		}
		m[k.Value] = t.value(v, t.mark(p, k.Line), depth+1)
	}
	return m
}

func (t *tree) scalar(n *yaml.Node, path string) any {
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		return n.Value
	case "!!null":
		return nil
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			return b
		}
	case "!!int":
		if i, err := strconv.ParseInt(n.Value, 10, 64); err == nil &&
			(n.Value == "0" || !strings.HasPrefix(strings.TrimLeft(n.Value, "+-"), "0")) {
			return i
		}
		var i int64
		if n.Decode(&i) == nil {
			return i
		}
	case "!!float":
		var f float64
		if n.Decode(&f) == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return f
		}
	}
	t.refuseNode(finding.Syntax, n, path,
		fmt.Sprintf("%q (%s) is not a value that configuration can hold", finding.Clip(n.Value), n.ShortTag()),
		"write text, a number, true or false, without a tag")
	return nil
}

func (t *tree) refuseNode(code finding.Code, n *yaml.Node, path, message, remedy string) {
	t.refuse(code, path, message, remedy)
	t.findings[len(t.findings)-1].Line = n.Line - 1
}

// mark records the line of a path and returns the path. What an alias repeats has the line of the alias.
func (t *tree) mark(path string, line int) string {
	if !t.inAlias {
		t.lines[path] = line - 1 - t.line
	}
	return path
}

// typeName returns what a JSON value is, for messages.
func typeName(v any) string {
	switch v.(type) {
	case nil:
		return "empty"
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case string:
		return "text"
	case bool:
		return "true or false"
	case int64:
		return "a whole number"
	default:
		return "a number"
	}
}
