package envoy

import (
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"isthmus.dev/isthmus/internal/authz"
)

// maxExpression bounds one regular expression that is made of several.
const maxExpression = 4096

// paths matches one of a list of paths.
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

// joined are alternatives as few expressions of bounded length.
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

// pathHygiene refuses what normalisation leaves ambiguous and servers read differently: path parameters; of escapes
// those of "%" and control characters, overlong ones (RFC 3629 §3, RFC 2279 §2), and what is none.
var pathHygiene = &rbacv3.Policy{
	Principals: []*rbacv3.Principal{anyone()},
	Permissions: []*rbacv3.Permission{
		pathContains(";"), // ordinaryPath
		andPermissions([]*rbacv3.Permission{
			pathContains("%"), // which most paths have not, and to look for is cheap
			pathRegex(`\C*%(?i:(?:25|[01]|7f|c[01]|e0%[89]|f0%8|f8%8[0-7]|fc%8[0-3])\C*|[0-9a-f]?(?:[^0-9a-f]\C*)?)`),
		}),
	},
}

// ordinaryPath has nothing that pathHygiene looks for. Like that, it is asked of the path without its query.
var ordinaryPath = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "/[^;%]*"}}
