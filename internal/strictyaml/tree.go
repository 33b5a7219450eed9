package strictyaml

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

// tree converts the YAML nodes of one object to JSON values and records the line of each field.
type tree struct {
	*Report
	*Budget
	inAlias bool
	halted  bool
}

// Budget is what one document may still contain.
type Budget struct {
	nodes   int
	aliased int // values repeated by aliases
}

// NewBudget returns the budget of a whole document.
func NewBudget() *Budget { return &Budget{nodes: MaxNodes, aliased: MaxAliased} }

// Report collects findings about one object or settings file. Lines count from 0 at the start of the document.
type Report struct {
	Object   kind.Key
	Line     int            // of the object
	Lines    map[string]int // of its fields, relative to Line
	Findings []finding.Finding
}

// Refuse adds a finding about a field.
func (r *Report) Refuse(code finding.Code, field, message, remedy string) {
	r.Add([]finding.Finding{finding.New(code, r.Object, field, message, remedy)})
}

// Add adds findings about the object.
func (r *Report) Add(findings []finding.Finding) {
	for _, f := range findings {
		f.Object = r.Object
		r.Findings = append(r.Findings, f.At("", r.Line+lineOf(f.Field, r.Lines)))
	}
}

// lineOf returns the line of a field, else of its nearest enclosing field, else 0.
func lineOf(field string, lines map[string]int) int {
	for f := range snapshot.Enclosing(field) {
		if l, ok := lines[f]; ok {
			return l
		}
	}
	return 0
}

// Value returns the JSON value of a node: map[string]any, []any, string, int64, float64, bool or nil.
func (r *Report) Value(n *yaml.Node, left *Budget) any {
	r.Line, r.Lines = n.Line-1, make(map[string]int, 24)
	t := &tree{Report: r, Budget: left}
	return t.value(n, "", 0)
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

// halt stops reading an object that is too large. It reports that once.
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
	t.Refuse(finding.TooLarge, field, message, "write it plainer, or split it")
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
	t.Refuse(code, path, message, remedy)
	t.Findings[len(t.Findings)-1].Line = n.Line - 1
}

// mark records the line of a path and returns an interned copy of the path. Values repeated by an alias have the
// alias's line.
func (t *tree) mark(path string, line int) string {
	if !t.inAlias {
		t.Lines[path] = line - 1 - t.Line
	}
	return path
}

// TypeName returns the JSON type of a value, for messages.
func TypeName(v any) string {
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
