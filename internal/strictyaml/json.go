package strictyaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// parseJSON parses concatenated JSON values. YAML parsers accept most JSON, but neither tabs nor surrogate pairs. ok is
// false if the text is not JSON.
func parseJSON(text []byte) (values []*yaml.Node, ok bool) {
	if IsMarker(text) {
		text = text[3:]
	}
	at := bytes.TrimLeft(text, " \t\r\n")
	if len(at) == 0 || at[0] != '{' && at[0] != '[' || halfCharacter(at) {
		return nil, false
	}
	r := jsonReader{text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1}
	r.dec.UseNumber()
	for {
		v, err := r.value(0)
		if errors.Is(err, io.EOF) {
			return values, true
		}
		if err != nil {
			return nil, false
		}
		values = append(values, v)
	}
}

// halfCharacter finds an escaped surrogate without its other half, which is not valid text.
func halfCharacter(text []byte) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		i++ // skip the escaped character
		switch u := escaped(text[i-1:]); {
		case u < 0xd800 || u > 0xdfff:
		case u > 0xdbff:
			return true
		default:
			if low := escaped(text[min(i+5, len(text)):]); low < 0xdc00 || low > 0xdfff {
				return true
			}
			i += 10
		}
	}
	return false
}

// escaped returns the number in a leading \uXXXX, or -1 if there is none.
func escaped(text []byte) int64 {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int64(n)
}

type jsonReader struct {
	text []byte
	dec  *json.Decoder
	at   int64 // lines are counted up to here
	line int
}

var errDeepJSON = errors.New("nested too deeply")

// value reads one value as the node that the YAML parser would produce.
func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	tok, err := r.dec.Token()
	if err != nil {
		return nil, err
	}
	return r.node(tok, depth)
}

func (r *jsonReader) node(tok json.Token, depth int) (*yaml.Node, error) {
	if depth > 2*MaxDepth {
		return nil, errDeepJSON
	}
	end := r.dec.InputOffset()
	r.line += bytes.Count(r.text[r.at:end], []byte("\n"))
	r.at = end
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line, Column: 1}
	switch v := tok.(type) {
	case json.Delim:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		if v == '{' {
			n.Kind, n.Tag = yaml.MappingNode, "!!map"
		}
		return n, r.inside(n, depth)
	case string:
		n.Tag, n.Value, n.Style = "!!str", v, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!float", v.String()
		if !bytes.ContainsAny([]byte(n.Value), ".eE") {
			n.Tag = "!!int"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(v)
	case nil:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

// inside reads the content of a list or mapping up to its end. Keys are read like values.
func (r *jsonReader) inside(n *yaml.Node, depth int) error {
	for r.dec.More() {
		v, err := r.value(depth + 1)
		if err != nil {
			return unexpected(err)
		}
		n.Content = append(n.Content, v)
	}
	_, err := r.dec.Token() // closing delimiter
	return unexpected(err)
}

// unexpected turns io.EOF within a value into io.ErrUnexpectedEOF.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
