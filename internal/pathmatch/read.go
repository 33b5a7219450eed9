package pathmatch

import (
	"fmt"
	"strconv"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// char is one byte of a path after decoding.
type char struct {
	b       byte
	escaped bool // as spelled in the policy
}

type text []char

func (t text) escapes() bool {
	for _, c := range t {
		if c.escaped {
			return true
		}
	}
	return false
}

func (t text) String() string {
	b := make([]byte, 0, len(t))
	for _, c := range t {
		b = append(b, c.b)
	}
	return string(b)
}

// fault is the reason why a pattern matches no request.
type fault struct {
	message, remedy string
	readable        bool // the intended paths are clear nevertheless, so a DENY rule can match them
}

// Fault says why no request can have a path that m allows. The message is empty if one can.
func Fault(m model.Match) (message, remedy string) {
	if _, f := read(m); f != nil {
		return f.message, f.remedy
	}
	return "", ""
}

// read parses a pattern.
func read(m model.Match) ([]part, *fault) {
	if m.Kind == model.Present {
		return nil, nil
	}
	var parts []part
	var first *fault
	for rest := m.Value; rest != "" || len(parts) == 0; {
		literal, operator, after := cutOperator(m.Kind, rest)
		t, f := decode(literal)
		if first == nil {
			first = f
		}
		if len(t) > 0 || operator == "" {
			parts = append(parts, part{text: t})
		}
		if operator != "" {
			parts = append(parts, part{operator: operator})
		}
		rest = after
	}
	if first == nil {
		first = shape(m, parts)
	}
	return parts, first
}

func cutOperator(kind model.MatchKind, s string) (literal, operator, after string) {
	if kind != model.Template {
		return s, "", ""
	}
	i := strings.IndexByte(s, '{')
	for _, op := range []string{"{*}", "{**}"} {
		if i >= 0 && strings.HasPrefix(s[i:], op) {
			return s[:i], op, s[i+len(op):]
		}
	}
	return s, "", ""
}

// decode parses literal text.
func decode(s string) (text, *fault) {
	var out text
	for i := 0; i < len(s); i++ {
		c := char{b: s[i]}
		switch {
		case s[i] == '%':
			n, err := uint64(0), error(strconv.ErrSyntax)
			if i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
				n, err = strconv.ParseUint(s[i+1:i+3], 16, 8)
			}
			if err != nil {
				return nil, &fault{
					message: "% stands there without two hexadecimal digits, and such a path is refused before any policy",
					remedy:  "write the characters themselves, or their escapes, such as %20",
				}
			}
			c = char{b: byte(n), escaped: !unreserved(byte(n))}
			if refusedEscape(c.b) {
				return nil, &fault{
					message: fmt.Sprintf("a path with %%%02X is refused before any policy", c.b),
					remedy:  "write it without; see docs/requests.md for the paths that pass",
				}
			}
			i += 2
		case s[i] == '?' || s[i] == '#':
			return nil, &fault{
				message: fmt.Sprintf("%q does not belong to the path: policies see no query", s[i:i+1]),
				remedy:  "end the value before it; a query cannot be matched",
			}
		case s[i] == ';':
			return nil, &fault{
				message: `a path with ";" is refused before any policy`,
				remedy:  "write it without; see docs/requests.md for the paths that pass",
			}
		case s[i] == '\\':
			c.b = '/'
		case onlyEscaped(s[i]):
			c.escaped = true
		}
		out = append(out, c)
	}
	return out, nil
}

// refusedEscape matches characters whose escapes make a proxy reject the request before any policy.
func refusedEscape(b byte) bool {
	return b < ' ' || b == 0x7f || b == '%' || b == '/' || b == '\\' || b == 0xc0 || b == 0xc1
}

// shape checks the decoded path as a whole.
func shape(m model.Match, parts []part) *fault {
	var whole strings.Builder
	for _, p := range parts {
		whole.WriteString(p.text.String() + p.operator)
	}
	s := whole.String()
	segments := strings.Split(s, "/")
	switch m.Kind {
	case model.Prefix:
		segments = segments[:len(segments)-1] // the last segment may continue
	case model.Suffix:
		segments = segments[1:]
	}
	for _, seg := range segments {
		if seg == "." || seg == ".." {
			return &fault{
				message: fmt.Sprintf("a request's path holds no segment %q: it is resolved before any policy", seg),
				remedy:  "write the path that it leads to",
			}
		}
	}
	switch {
	case m.Kind != model.Suffix && !strings.HasPrefix(s, "/"):
		return &fault{message: `a request's path begins with "/"`, remedy: "write /" + m.Value}
	case strings.Contains(s, "//"):
		return &fault{
			message:  `"//" is read as "/" (only what refuses matches all the same, any number of slashes)`,
			remedy:   `write one "/"`,
			readable: true,
		}
	}
	return nil
}
