package authz

import (
	"regexp"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// How what is written in a policy is compared where servers read several spellings alike. Refusing sees through them;
// allowing compares what every server reads so. In an expression \C is any byte, be it no UTF-8.

const cookieHeader = "cookie"

// host compares the Host as its readers do: without regard to case, a trailing dot or the port.
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

// method compares the method. HTTP/2 carries it in any case, and some servers read "delete" as "DELETE".
func method(refusing bool) func(model.Match) Formula {
	return func(m model.Match) Formula { return Header{":method", Comparison{Match: m, IgnoreCase: refusing}} }
}

// header compares the whole of one.
func header(name string) func(model.Match) Formula {
	if strings.EqualFold(name, cookieHeader) {
		return theCookie
	}
	return func(m model.Match) Formula { return Header{name, Comparison{Match: m}} }
}

// listed matches a header of which any value in its list matches: "user,admin" holds "admin".
func listed(name string) func(model.Match) Formula {
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

// A Cookie header holds many values, of which a policy means one: "role=admin" in "a=b; role=admin" (RFC 6265 §4.2).

// anyCookie matches where a server may find the cookie, also in quotes and behind blanks.
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

// theCookie matches where every server finds the cookie: among others, but without a second one of its name.
func theCookie(m model.Match) Formula {
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
