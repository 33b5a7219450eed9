package envoy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
)

// callerHeader carries the caller that a federation gateway asserts.
const callerHeader = "isthmus-caller"

// denyRBAC and allowRBAC translate policies in normal form. nil means that there is nothing to enforce.
func denyRBAC(ps authz.Policies) *rbacv3.RBAC {
	if len(ps.Deny) == 0 {
		return nil
	}
	return &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: rbacPolicies(ps.Deny)}
}

// allowRBAC denies whatever no policy allows, unless the mesh allows by default.
func allowRBAC(ps authz.Policies) *rbacv3.RBAC {
	if ps.DefaultAllow {
		return nil
	}
	return &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: rbacPolicies(ps.Allow)}
}

func rbacPolicies(rules []authz.Rule) map[string]*rbacv3.Policy {
	out := map[string]*rbacv3.Policy{}
	for _, r := range rules {
		out[policyName(r.Policy.Name, r.Number)] = &rbacv3.Policy{
			Principals: each(r.From, principal), Permissions: each(r.To, permission),
		}
	}
	return out
}

// policyName returns the name of the matched policy that Envoy reports: the object and the index of its rule.
func policyName(object string, rule int) string { return fmt.Sprintf("%s#%d", object, rule) }

func quote(s string) string { return regexp.QuoteMeta(s) }

func each[V, R any](list []V, one func(V) R) []R {
	out := make([]R, 0, len(list))
	for _, v := range list {
		out = append(out, one(v))
	}
	return out
}

// principal translates a formula about the caller.
func principal(f authz.Formula) *rbacv3.Principal {
	switch f := f.(type) {
	case authz.All:
		return andPrincipals(each(f, principal))
	case authz.Any:
		return orPrincipals(each(f, principal))
	case authz.Not:
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: principal(f.Formula)}}
	case authz.Caller:
		return authenticated(textMatcher(f.Comparison))
	case authz.Asserted:
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_Header{
			Header: headerMatcher(authz.Header{Name: callerHeader, Comparison: f.Comparison}),
		}}
	// remote_ip also is the direct address, but a call that was handed over inside the proxy has no direct one.
	case authz.Source:
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_RemoteIp{RemoteIp: cidr(netip.Prefix(f))}}
	}
	panic(fmt.Sprintf("%T is no formula on who calls", f)) // cannot happen: a test covers every formula
}

// permission translates a formula about the request.
func permission(f authz.Formula) *rbacv3.Permission {
	switch f := f.(type) {
	case authz.All:
		return andPermissions(each(f, permission))
	case authz.Any:
		return orPermissions(each(f, permission))
	case authz.Not:
		return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: permission(f.Formula)}}
	case authz.Header:
		return headerPermission(headerMatcher(f))
	case authz.Path:
		return paths(f)
	case authz.SNI:
		return &rbacv3.Permission{
			Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: textMatcher(f.Comparison)},
		}
	case authz.Destination:
		return &rbacv3.Permission{
			Rule: &rbacv3.Permission_DestinationIp{DestinationIp: cidr(netip.Prefix(f))},
		}
	case authz.Port:
		return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: uint32(f)}}
	}
	panic(fmt.Sprintf("%T is no formula on what is asked for", f)) // cannot happen: a test covers every formula
}

// textMatcher translates a comparison of a string.
func textMatcher(c authz.Comparison) *matcherv3.StringMatcher {
	switch {
	case c.Regex != "":
		return regex(c.Regex)
	case c.Segment != "":
		return regex(quote(c.Match.Value) + glob(c.Segment, "[^/]*") + "/.*")
	}
	m := stringMatcher(c.Match)
	m.IgnoreCase = c.IgnoreCase
	return m
}

// headerMatcher translates a comparison of a header. The header may be present and empty.
func headerMatcher(h authz.Header) *routev3.HeaderMatcher {
	if h.Regex == "" && h.Match.Kind == model.Present {
		return &routev3.HeaderMatcher{
			Name:                 h.Name,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
		}
	}
	return &routev3.HeaderMatcher{
		Name:                 h.Name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: textMatcher(h.Comparison)},
	}
}

// glob converts a pattern to a regular expression. "*" matches any characters.
func glob(pattern, star string) string {
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return strings.Join(parts, star)
}

func headerPermission(h *routev3.HeaderMatcher) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: h}}
}

// header compares a whole header.
func header(name string, m model.Match) *routev3.HeaderMatcher {
	return headerMatcher(authz.Header{Name: name, Comparison: authz.Comparison{Match: m}})
}

func stringMatcher(m model.Match) *matcherv3.StringMatcher {
	switch m.Kind {
	case model.Prefix:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: m.Value}}
	case model.Suffix:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: m.Value}}
	case model.Present:
		return regex(".+")
	}
	return exactly(m.Value)[0]
}

func regex(expression string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expression}},
	}
}

func authenticated(m *matcherv3.StringMatcher) *rbacv3.Principal {
	return &rbacv3.Principal{
		Identifier: &rbacv3.Principal_Authenticated_{Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: m}},
	}
}

func cidr(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: u32(uint32(p.Bits()))}
}

func anyone() *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
}

func andPrincipals(ids []*rbacv3.Principal) *rbacv3.Principal {
	switch len(ids) {
	case 0:
		return anyone()
	case 1:
		return ids[0]
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: ids}}}
}

func orPrincipals(ids []*rbacv3.Principal) *rbacv3.Principal {
	switch len(ids) {
	case 0:
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: anyone()}}
	case 1:
		return ids[0]
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: ids}}}
}

func andPermissions(rules []*rbacv3.Permission) *rbacv3.Permission {
	switch len(rules) {
	case 0:
		return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
	case 1:
		return rules[0]
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: rules}}}
}

func orPermissions(rules []*rbacv3.Permission) *rbacv3.Permission {
	switch len(rules) {
	case 0:
		return never()
	case 1:
		return rules[0]
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: rules}}}
}
