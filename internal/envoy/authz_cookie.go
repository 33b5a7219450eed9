package envoy

import (
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"isthmus.dev/isthmus/internal/model"
)

// A Cookie header holds many values, of which a policy means one: "role=admin" in "a=b; role=admin" (RFC 6265 §4.2).

const cookieHeader = "cookie"

// anyCookie matches where a server may find the cookie, also in quotes and behind blanks.
func anyCookie(m model.Match) *rbacv3.Permission {
	const before, after = `(?:\C*[;,])?[ \t]*`, `[ \t]*(?:[;,]\C*)?`
	name, value, named := strings.Cut(m.Value, "=")
	whole := quote(m.Value)
	if named {
		whole = quote(name) + `[ \t]*=[ \t]*"?` + quote(value)
	}
	switch m.Kind {
	case model.Exact:
		return cookies(before + whole + `"?` + after)
	case model.Prefix:
		return cookies(before + whole + `\C*`)
	case model.Suffix:
		return cookies(`\C*` + quote(m.Value) + `"?` + after)
	}
	return headerPermission(header(cookieHeader, m, false))
}

// theCookie matches where every server finds the cookie: among others, but without a second one of its name.
func theCookie(m model.Match) *rbacv3.Permission {
	name, _, named := strings.Cut(m.Value, "=")
	if !named || m.Kind == model.Suffix || m.Kind == model.Present {
		return headerPermission(header(cookieHeader, m, false))
	}
	const begin = `(?:\C*;)?[ \t]*`
	one := begin + quote(m.Value) + `[ \t]*(?:;\C*)?`
	if m.Kind == model.Prefix {
		one = begin + quote(m.Value) + `\C*`
	}
	again := quote(name) + `[ \t]*=\C*`
	return andPermissions([]*rbacv3.Permission{
		cookies(one),
		{Rule: &rbacv3.Permission_NotRule{NotRule: cookies(`(?:\C*[;,])?[ \t]*` + again + `[;,][ \t]*` + again)}},
	})
}

func cookies(expression string) *rbacv3.Permission {
	return headerPermission(headerRegex(cookieHeader, expression))
}
