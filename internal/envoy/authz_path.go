package envoy

import (
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"isthmus.dev/isthmus/internal/authz"
)

// maxExpression limits the size of a combined regular expression.
const maxExpression = 4096

// paths matches any of a list of paths.
func paths(p authz.Path) *rbacv3.Permission {
	var out []*rbacv3.Permission
	var always, odd []string
	for _, m := range p.Matches {
		t := p.Test(m)
		if t.Plain != nil {
			out = append(out, urlPath(stringMatcher(*t.Plain)))
		}
		switch {
		case t.Regex != "" && t.Odd:
			odd = append(odd, t.Regex)
		case t.Regex != "":
			always = append(always, t.Regex)
		}
	}
	out = append(out, each(joined(always), pathRegex)...)
	if len(odd) > 0 {
		out = append(out, andPermissions([]*rbacv3.Permission{
			orPermissions([]*rbacv3.Permission{pathContains("%"), pathContains("//")}),
			orPermissions(each(joined(odd), pathRegex)),
		}))
	}
	return orPermissions(out)
}

// joined combines alternatives into few expressions of limited size.
func joined(list []string) []string {
	var out []string
	for _, e := range list {
		if n := len(out); n > 0 && len(out[n-1])+len(e) < maxExpression {
			out[n-1] += "|" + e
		} else {
			out = append(out, e)
		}
	}
	return out
}

func pathRegex(expression string) *rbacv3.Permission { return urlPath(regex(expression)) }

func pathContains(s string) *rbacv3.Permission {
	return urlPath(containing(s))
}

func containing(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: s}}
}

func urlPath(m *matcherv3.StringMatcher) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{
		Rule: &matcherv3.PathMatcher_Path{Path: m},
	}}}
}

func never() *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: andPermissions(nil)}}
}

const hygienePolicy = "isthmus/path-hygiene"

// pathHygiene refuses what normalisation leaves ambiguous: path parameters; escaped "%" and control characters;
// overlong UTF-8 (RFC 3629 §3, RFC 2279 §2); and invalid escapes.
var pathHygiene = &rbacv3.Policy{
	Principals: []*rbacv3.Principal{anyone()},
	Permissions: []*rbacv3.Permission{
		pathContains(";"), // ordinaryPath
		andPermissions([]*rbacv3.Permission{
			pathContains("%"), // cheap to test, and false for most paths
			pathRegex(`\C*%(?i:(?:25|[01]|7f|c[01]|e0%[89]|f0%8|f8%8[0-7]|fc%8[0-3])\C*|[0-9a-f]?(?:[^0-9a-f]\C*)?)`),
		}),
	},
}

// ordinaryPath has nothing that pathHygiene looks for. Like that, it is asked of the path without its query.
var ordinaryPath = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "/[^;%]*"}}
