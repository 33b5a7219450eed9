package istioyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"isthmus.dev/isthmus/internal/finding"
)

// decodeDocument reads one YAML document: one object, or a List of them.
func decodeDocument(text []byte, validate Validator) *document {
	if len(text) > MaxDocumentBytes {
		return &document{findings: []finding.Finding{{
			Code: CodeTooLarge, Message: fmt.Sprintf("the document has %d bytes, more than %d", len(text), MaxDocumentBytes),
			Remedy: "split it into several documents with a line ---",
		}}}
	}
	root, bad := parse(text)
	if bad != nil {
		return &document{findings: []finding.Finding{*bad}}
	}
	d, left := &document{}, &budget{nodes: MaxNodes, aliased: MaxAliased}
	items, ok := listItems(root)
	if !ok {
		items = []*yaml.Node{root}
	}
	for _, item := range items {
		o, findings := decodeObject(item, left, validate)
		d.findings = append(d.findings, findings...)
		if o != nil {
			d.objects = append(d.objects, *o)
		}
		if len(d.findings) > MaxFindings {
			finding.Sort(d.findings) // errors first: they are what the document stands and falls with
			d.findings = d.findings[:MaxFindings]
			if hasErrors(d.findings) {
				break // enough to begin with
			}
		}
	}
	return d
}

// parse is the one root node of a document, nil if there is only white space and comments.
func parse(text []byte) (*yaml.Node, *finding.Finding) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, syntax(text, err)
	}
	if err := dec.Decode(&more); err == nil {
		return nil, &finding.Finding{Code: CodeSyntax, Line: more.Line - 1, Message: "text follows the end of the document", Remedy: "begin every document with a line ---"}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntax(text, err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, nil
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil, nil
	}
	return root, nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax words a parser's error.
func syntax(text []byte, err error) *finding.Finding {
	f := &finding.Finding{Code: CodeSyntax, Message: "not YAML: " + err.Error(), Remedy: "mend the YAML: check indentation, colons and quotes on this line and the one before"}
	if m := yamlLine.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0]); m != nil {
		f.Message = "not YAML: " + m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			f.Line = max(0, n-1)
		}
	}
	for i, line := range bytes.Split(text, []byte("\n")) {
		if bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte("\t")) && len(bytes.TrimSpace(line)) > 0 {
			f.Line, f.Message, f.Remedy = i, "not YAML: a tab indents this line", "indent with spaces"
			break
		}
	}
	return f
}

// listItems are the items of a "kind: List" document as kubectl writes it.
func listItems(root *yaml.Node) ([]*yaml.Node, bool) {
	if root.Kind != yaml.MappingNode {
		return nil, false
	}
	var list, core bool
	var items []*yaml.Node
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch k, v := root.Content[i].Value, root.Content[i+1]; k {
		case "kind":
			list = v.Value == "List"
		case "apiVersion":
			core = v.Value == "v1"
		case "items":
			if v.Kind == yaml.SequenceNode {
				items = v.Content
			}
		}
	}
	return items, list && core
}
