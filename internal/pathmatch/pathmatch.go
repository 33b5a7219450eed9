// Package pathmatch turns a policy's path into the test that a proxy applies to a request's path.
//
// A proxy tests the path that it forwards: without the query, with dot segments resolved, escaped unreserved characters
// (letters, digits, "-._~") decoded, and characters that a path cannot contain escaped. Servers may still treat two
// spellings alike: a character such as "@" may be escaped ("%40"), and "/" may be repeated. A DENY rule therefore
// matches every equivalent spelling. An ALLOW rule matches only the spelling in the policy, so that no interpretation
// of the path falls outside it.
package pathmatch

import (
	"fmt"
	"regexp"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// Test matches a path if Plain or Regex does. If both are empty it never matches.
type Test struct {
	Plain *model.Match // of the whole path
	Regex string       // of the whole path
	// Odd means that Regex matches only paths that contain "%" or "//", so other paths need not be tested.
	Odd bool
}

// Written matches the path exactly as m spells it.
func Written(m model.Match) Test {
	parts, fault := read(m)
	switch {
	case fault != nil:
		return Test{}
	case m.Kind == model.Present:
		return Test{Plain: &m}
	case m.Kind == model.Template:
		return Test{Regex: template(parts, exactSpelling, `[A-Za-z0-9\-._~%!$&'()+,:@=]`)}
	}
	text := parts[0].text
	switch {
	case m.Kind == model.Suffix && beginsInEscape(text):
		// "*admin" must not match "/%2admin", whose "a" is part of an escape.
		return Test{Regex: `(?:[^%]|%[0-9A-Fa-f]{2})*` + exactSpelling(text)}
	case text.escapes():
		return Test{Regex: anchor(m.Kind, exactSpelling(text)), Odd: true}
	}
	return Test{Plain: &model.Match{Kind: m.Kind, Value: text.String()}}
}

// AnySpelling matches every path that a server may treat like the one that m spells.
func AnySpelling(m model.Match) Test {
	parts, fault := read(m)
	switch {
	case fault != nil && !fault.readable:
		return Test{}
	case m.Kind == model.Present:
		return Test{Plain: &m}
	case m.Kind == model.Template:
		return Test{Regex: template(parts, anySpelling, `[^/]`)}
	}
	text := parts[0].text
	t := Test{Regex: anchor(m.Kind, anySpelling(text)), Odd: true}
	if plain := text.String(); strings.IndexFunc(plain,
		func(r rune) bool { return r > 0x7e || onlyEscaped(byte(r)) }) < 0 {
		t.Plain = &model.Match{Kind: m.Kind, Value: slashes.ReplaceAllString(plain, "/")}
	}
	return t
}

var slashes = regexp.MustCompile(`/+`)

func anchor(kind model.MatchKind, expression string) string {
	switch kind {
	case model.Prefix:
		return expression + `\C*`
	case model.Suffix:
		return `\C*` + expression
	}
	return expression
}

// part is literal text or a template operator.
type part struct {
	text     text
	operator string // "{*}" or "{**}"
}

// template joins the parts of a path template. character is the expression for one character of a segment.
func template(parts []part, literal func(text) string, character string) string {
	var b strings.Builder
	for i, p := range parts {
		switch {
		case p.operator == "{*}":
			b.WriteString(character + "+")
		case p.operator == "{**}" && i < len(parts)-1:
			// An empty segment would match here but not after the slashes are merged.
			b.WriteString(character + `(?:/*` + character + `)*/*`)
		case p.operator == "{**}":
			b.WriteString(`(?:` + character + `|/)*`)
		default:
			b.WriteString(literal(p.text))
		}
	}
	return b.String()
}

// exactSpelling returns an expression for a text as it is spelled. The case of an escape's digits is ignored (RFC 3986
// §6.2.2.1).
func exactSpelling(t text) string {
	var b strings.Builder
	for _, c := range t {
		if c.escaped {
			b.WriteString(escape(c.b))
		} else {
			b.WriteString(regexp.QuoteMeta(string(c.b)))
		}
	}
	return b.String()
}

// anySpelling returns an expression for every spelling of a text.
func anySpelling(t text) string {
	var b strings.Builder
	for i, c := range t {
		switch {
		case c.b == '/' && i > 0 && t[i-1].b == '/':
		case c.b == '/':
			b.WriteString("/+")
		case unreserved(c.b):
			b.WriteString(regexp.QuoteMeta(string(c.b)))
		case onlyEscaped(c.b):
			b.WriteString(escape(c.b))
		default:
			b.WriteString("(?:" + regexp.QuoteMeta(string(c.b)) + "|" + escape(c.b) + ")")
		}
	}
	return b.String()
}

func escape(b byte) string {
	digits := fmt.Sprintf("%%%02x", b)
	if strings.ContainsAny(digits, "abcdef") {
		return "(?i:" + digits + ")"
	}
	return digits
}

// beginsInEscape reports whether the first characters may be the digits of an escape.
func beginsInEscape(t text) bool { return len(t) > 0 && !t[0].escaped && isHex(t[0].b) }

func isHex(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F'
}

// unreserved characters are decoded by proxies wherever they are escaped (RFC 3986 §2.3).
func unreserved(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("-._~", b) >= 0
}

// onlyEscaped characters appear in a path only as escapes.
func onlyEscaped(b byte) bool {
	return b <= ' ' || b >= 0x7f || strings.IndexByte("\"<>^`{|}?#;", b) >= 0
}
