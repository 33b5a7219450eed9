// Package strictyaml reads YAML written by people: configuration objects and process settings. It refuses ambiguous or
// oversized input and unknown fields, and reports line numbers. It reads no files.
package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
)

// Limits of one document.
const (
	MaxDocumentBytes = 1 << 20
	MaxDepth         = 64
	MaxNodes         = 50_000 // values
	MaxAliased       = 1_000  // repeated by aliases
)

// Parse returns the root nodes of a text, none if it contains only white space and comments. Lines in a finding count
// from 0.
func Parse(text []byte) ([]*yaml.Node, *finding.Finding) {
	if bad := unreadable(text); bad != nil {
		return nil, bad
	}
	if len(text) > MaxDocumentBytes {
		return nil, new(finding.New(finding.TooLarge, kind.Key{}, "",
			fmt.Sprintf("the document has %d bytes, more than %d", len(text), MaxDocumentBytes),
			"split it into several documents with a line ---"))
	}
	if values, ok := parseJSON(text); ok {
		return values, nil
	}
	var roots []*yaml.Node
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var doc yaml.Node
		if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
			return roots, nil
		} else if err != nil {
			return nil, syntax(text, err)
		}
		if doc.Kind == yaml.DocumentNode && len(doc.Content) == 1 {
			roots = append(roots, doc.Content[0])
		}
	}
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax converts a parser's error.
func syntax(text []byte, err error) *finding.Finding {
	f := new(finding.New(finding.Syntax, kind.Key{}, "",
		"not YAML: "+err.Error(),
		"correct the YAML: check indentation, colons and quotes on this line and the one before"))
	if m := yamlLine.FindStringSubmatch(strings.SplitN(err.Error(), "\n", 2)[0]); m != nil {
		f.Message = "not YAML: " + m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			f.Line = max(0, n-1)
		}
		if strings.HasPrefix(m[2], "did not find expected key") ||
			strings.HasPrefix(m[2], "did not find expected '-'") {
			f.Line = faultyLine(text, err.Error(), f.Line)
			f.Message = "not YAML: the indentation of this line fits no line above it"
			f.Remedy = "indent it like the lines that it belongs with"
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

// faultyLine returns the first line that the parser cannot be given without the error. For a fault in a block the
// parser itself names the line at which the block begins, which is begins here.
func faultyLine(text []byte, message string, begins int) int {
	lines := bytes.SplitAfter(text, []byte("\n"))
	return begins + sort.Search(len(lines)-begins-1, func(n int) bool {
		dec := yaml.NewDecoder(bytes.NewReader(bytes.Join(lines[:begins+n+1], nil)))
		for {
			switch err := dec.Decode(new(yaml.Node)); {
			case errors.Is(err, io.EOF):
				return false
			case err != nil:
				return err.Error() == message
			}
		}
	})
}

// Resolve returns the target of an alias.
func Resolve(n *yaml.Node) *yaml.Node {
	for hops := 0; n != nil && n.Kind == yaml.AliasNode; hops++ {
		if hops > MaxDepth {
			return nil
		}
		n = n.Alias
	}
	return n
}

// IsMarker reports whether a line begins a document.
func IsMarker(line []byte) bool { return IsMark(line, "---") }

// IsMark reports whether a line is a mark of three characters, alone or followed by white space.
func IsMark(line []byte, mark string) bool {
	return bytes.HasPrefix(line, []byte(mark)) &&
		(len(line) == 3 || line[3] == ' ' || line[3] == '\t' || line[3] == '\n' || line[3] == '\r')
}
