package authz

import (
	"regexp"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// This file compares values of which servers accept several spellings. Denying covers every spelling; allowing covers
// only the one that all servers read alike. In the expressions, \C is any byte, valid UTF-8 or not.

const cookieHeader = "cookie"

// host compares the Host header as servers do: ignoring case, a trailing dot and the port.
func host(m model.Match) Formula {
	const rest = `\.?(?::[0-9]*)?`
	c := Comparison{Match: m, IgnoreCase: true}
	switch m.Kind {
	case model.Exact:
		c = Comparison{Regex: "(?i)" + regexp.QuoteMeta(m.Value) + rest}
	case model.Suffix:
		c = Comparison{Regex: "(?i).*" + regexp.QuoteMeta(m.Value) + rest}
	}
	return Header{":authority", c}
}

// method compares the method. HTTP/2 carries methods in any case, and some servers treat "delete" as "DELETE".
func method(refusing bool) func(model.Match) Formula {
	return func(m model.Match) Formula { return Header{":method", Comparison{Match: m, IgnoreCase: refusing}} }
}

// header compares a whole header value.
func header(name string) func(model.Match) Formula {
	if strings.EqualFold(name, cookieHeader) {
		return uniqueCookie
	}
	return func(m model.Match) Formula { return Header{name, Comparison{Match: m}} }
}

// listHeader matches a header if any element of its comma-separated list matches: "user,admin" contains "admin".
func listHeader(name string) func(model.Match) Formula {
	if strings.EqualFold(name, cookieHeader) {
		return anyCookie
	}
	const before, after = `(?:\C*,)?[ \t]*`, `[ \t]*(?:,\C*)?`
	return func(m model.Match) Formula {
		value := regexp.QuoteMeta(m.Value)
		switch m.Kind {
		case model.Exact:
			return Header{name, Comparison{Regex: before + value + after}}
		case model.Prefix:
			return Header{name, Comparison{Regex: before + value + `\C*`}}
		case model.Suffix:
			return Header{name, Comparison{Regex: `\C*` + value + after}}
		}
		return Header{name, Comparison{Match: m}}
	}
}

// A Cookie header holds many cookies, of which a policy means one: "role=admin" in "a=b; role=admin" (RFC 6265 §4.2).

// anyCookie matches wherever some server may find the cookie, including in quotes and after blanks.
func anyCookie(m model.Match) Formula {
	const before, after = `(?:\C*[;,])?[ \t]*`, `[ \t]*(?:[;,]\C*)?`
	name, value, named := strings.Cut(m.Value, "=")
	whole := regexp.QuoteMeta(m.Value)
	if named {
		whole = regexp.QuoteMeta(name) + `[ \t]*=[ \t]*"?` + regexp.QuoteMeta(value)
	}
	switch m.Kind {
	case model.Exact:
		return cookies(before + whole + `"?` + after)
	case model.Prefix:
		return cookies(before + whole + `\C*`)
	case model.Suffix:
		return cookies(`\C*` + regexp.QuoteMeta(m.Value) + `"?` + after)
	}
	return Header{cookieHeader, Comparison{Match: m}}
}

// uniqueCookie matches only where every server finds the cookie: other cookies may surround it, but no second one of
// its name.
func uniqueCookie(m model.Match) Formula {
	name, _, named := strings.Cut(m.Value, "=")
	if !named || m.Kind == model.Suffix || m.Kind == model.Present {
		return Header{cookieHeader, Comparison{Match: m}}
	}
	const begin = `(?:\C*;)?[ \t]*`
	one := begin + regexp.QuoteMeta(m.Value) + `[ \t]*(?:;\C*)?`
	if m.Kind == model.Prefix {
		one = begin + regexp.QuoteMeta(m.Value) + `\C*`
	}
	again := regexp.QuoteMeta(name) + `[ \t]*=\C*`
	return All{cookies(one), Not{cookies(`(?:\C*[;,])?[ \t]*` + again + `[;,][ \t]*` + again)}}
}

func cookies(expression string) Formula { return Header{cookieHeader, Comparison{Regex: expression}} }
