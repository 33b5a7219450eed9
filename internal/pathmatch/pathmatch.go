// Package pathmatch says which paths of requests a path of a policy means.
//
// A proxy compares the path that it passes on: without the query, dot segments resolved, escaped letters, digits and
// "-._~" written out, what cannot stand in a path escaped. Two spellings are left that servers read alike: a character
// such as "@" may be escaped ("%40"), and "/" may be repeated. What refuses matches every spelling of the path that is
// written; what allows matches the one that is written, so that no reading of it lies outside.
package pathmatch

import (
	"fmt"
	"regexp"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// Test is how a proxy compares a path: it matches if one of the two does, and never if there is neither.
type Test struct {
	Plain *model.Match // of the whole path, as text
	Regex string       // of the whole path
	// Odd: the expression matches nothing but paths with "%" or "//", so that others need not be tried.
	Odd bool
}

// Written matches the path as m spells it.
func Written(m model.Match) Test {
	parts, fault := read(m)
	switch {
	case fault != nil:
		return Test{}
	case m.Kind == model.Present:
		return Test{Plain: &m}
	case m.Kind == model.Template:
		return Test{Regex: template(parts, written, `[A-Za-z0-9\-._~%!$&'()+,:@=]`)}
	}
	text := parts[0].text
	switch {
	case m.Kind == model.Suffix && beginsInEscape(text):
		// "*admin" is no end of "/%2admin", whose "a" is half of a character.
		return Test{Regex: `(?:[^%]|%[0-9A-Fa-f]{2})*` + written(text)}
	case text.escapes():
		return Test{Regex: around(m.Kind, written(text)), Odd: true}
	}
	return Test{Plain: &model.Match{Kind: m.Kind, Value: text.String()}}
}

// AnySpelling matches every path that a server may take for the one that m means.
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
	t := Test{Regex: around(m.Kind, anySpelling(text)), Odd: true}
	if plain := text.String(); strings.IndexFunc(plain,
		func(r rune) bool { return r > 0x7e || onlyEscaped(byte(r)) }) < 0 {
		t.Plain = &model.Match{Kind: m.Kind, Value: slashes.ReplaceAllString(plain, "/")}
	}
	return t
}

var slashes = regexp.MustCompile(`/+`)

func around(kind model.MatchKind, expression string) string {
	switch kind {
	case model.Prefix:
		return expression + `\C*`
	case model.Suffix:
		return `\C*` + expression
	}
	return expression
}

// part is literal text, or an operator of a template.
type part struct {
	text     text
	operator string // "{*}" or "{**}"
}

// template joins the parts of one; character is what one may hold.
func template(parts []part, literal func(text) string, character string) string {
	var b strings.Builder
	for i, p := range parts {
		switch {
		case p.operator == "{*}":
			b.WriteString(character + "+")
		case p.operator == "{**}" && i < len(parts)-1:
			// Nothing between two slashes would be a match that is none once they are merged.
			b.WriteString(character + `(?:/*` + character + `)*/*`)
		case p.operator == "{**}":
			b.WriteString(`(?:` + character + `|/)*`)
		default:
			b.WriteString(literal(p.text))
		}
	}
	return b.String()
}

// written is an expression for a text as it is spelled; the case of an escape's digits means nothing (RFC 3986
// §6.2.2.1).
func written(t text) string {
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

// anySpelling is an expression for every spelling of a text.
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

// beginsInEscape: the first one or two characters may be the digits of an escape.
func beginsInEscape(t text) bool { return len(t) > 0 && !t[0].escaped && isHex(t[0].b) }

func isHex(b byte) bool {
	return b >= '0' && b <= '9' || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F'
}

// unreserved are the characters that proxies write out wherever they come escaped (RFC 3986 §2.3).
func unreserved(b byte) bool {
	return b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte("-._~", b) >= 0
}

// onlyEscaped are the characters that a path holds in no other way.
func onlyEscaped(b byte) bool {
	return b <= ' ' || b >= 0x7f || strings.IndexByte("\"<>^`{|}?#;", b) >= 0
}
