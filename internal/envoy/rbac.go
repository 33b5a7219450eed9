package envoy

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"isthmus.dev/isthmus/internal/model"
)

// callerHeader carries the caller that a federation gateway asserts.
const callerHeader = "isthmus-caller"

// rbacTranslator turns policies into Envoy RBAC for HTTP or for raw TCP.
// On TCP (Istio: AuthorizationPolicy on TCP ports) an ALLOW rule with an HTTP field is dropped; a DENY rule loses the field.
type rbacTranslator struct {
	http     bool
	trust    string   // own trust domain
	gateways []string // own gateways' SPIFFE IDs: the only ones whose assertions count
}

// rules makes one RBAC. A nil result means that there is nothing to enforce.
func (t rbacTranslator) deny(ps model.Policies) *rbacv3.RBAC {
	if len(ps.Deny) == 0 {
		return nil
	}
	return &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: t.policies(ps.Deny, model.Deny)}
}

// allow denies all where no policy allows, unless the mesh's default says otherwise.
func (t rbacTranslator) allow(ps model.Policies) *rbacv3.RBAC {
	if len(ps.Allow) == 0 && ps.DefaultAllow {
		return nil
	}
	return &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW, Policies: t.policies(ps.Allow, model.Allow)}
}

func (t rbacTranslator) policies(list []*model.Policy, action model.Action) map[string]*rbacv3.Policy {
	out := map[string]*rbacv3.Policy{}
	for _, p := range list {
		for _, r := range p.Rules {
			if !t.http && action == model.Allow && needsHTTP(r) {
				continue
			}
			out[policyName(p.Name, r.Number)] = t.rule(r, action)
		}
	}
	return out
}

// policyName is what Envoy reports as the matched policy: the object and the number of its rule.
func policyName(object string, rule int) string { return fmt.Sprintf("%s#%d", object, rule) }

func quote(s string) string { return regexp.QuoteMeta(s) }

// needsHTTP says whether a rule asks for something that only a request has.
func needsHTTP(r model.Rule) bool {
	for _, o := range r.To {
		if len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) > 0 {
			return true
		}
	}
	for _, f := range r.From {
		if asserted(f.Principals) || asserted(f.NotPrincipals) {
			return true
		}
	}
	for _, w := range r.When {
		if strings.HasPrefix(w.Key, "request.") {
			return true
		}
		for _, s := range append(w.Sources[:len(w.Sources):len(w.Sources)], w.NotSources...) {
			if asserted(s.Principals) {
				return true
			}
		}
	}
	return false
}

func asserted(ps []model.Principal) bool {
	for _, p := range ps {
		if p.Peer != "" {
			return true
		}
	}
	return false
}

func (t rbacTranslator) rule(r model.Rule, action model.Action) *rbacv3.Policy {
	var whenPrincipals []*rbacv3.Principal
	var whenPermissions []*rbacv3.Permission
	for _, w := range r.When {
		pr, pe := t.condition(w, action)
		whenPrincipals, whenPermissions = append(whenPrincipals, pr...), append(whenPermissions, pe...)
	}
	p := &rbacv3.Policy{}
	for _, f := range r.From {
		p.Principals = append(p.Principals, andPrincipals(append(t.source(f), whenPrincipals...)))
	}
	if len(r.From) == 0 {
		p.Principals = []*rbacv3.Principal{andPrincipals(whenPrincipals)}
	}
	for _, o := range r.To {
		p.Permissions = append(p.Permissions, andPermissions(append(t.operation(o), whenPermissions...)))
	}
	if len(r.To) == 0 {
		p.Permissions = []*rbacv3.Permission{andPermissions(whenPermissions)}
	}
	return p
}

func (t rbacTranslator) source(s model.Source) []*rbacv3.Principal {
	var ids []*rbacv3.Principal
	ids = both(ids, s.Principals, nil, t.principal)
	ids = both(ids, nil, s.NotPrincipals, t.notPrincipal)
	ids = both(ids, s.ServiceAccounts, s.NotServiceAccounts, t.principal)
	ids = both(ids, s.Namespaces, s.NotNamespaces, t.namespace)
	ids = both(ids, s.TrustDomains, s.NotTrustDomains, t.trustDomain)
	ids = both(ids, s.IPBlocks, s.NotIPBlocks, directIP)
	return both(ids, s.RemoteIPBlocks, s.NotRemoteIPBlocks, remoteIP)
}

// both adds "one of yes" and "none of no"; a nil principal is a value that cannot be compared here and never matches.
func both[V any](ids []*rbacv3.Principal, yes, no []V, one func(V) *rbacv3.Principal) []*rbacv3.Principal {
	if len(yes) > 0 {
		ids = append(ids, orPrincipals(each(yes, one)))
	}
	if len(no) > 0 {
		ids = append(ids, &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: orPrincipals(each(no, one))}})
	}
	return ids
}

func each[V, R any](list []V, one func(V) R) []R {
	out := make([]R, 0, len(list))
	for _, v := range list {
		out = append(out, one(v))
	}
	return out
}

// principal compares the peer certificate's URI SAN, or for an identity of a peer mesh the caller that one of our own
// gateways asserts.
func (t rbacTranslator) principal(p model.Principal) *rbacv3.Principal {
	if p.Peer == "" {
		return authenticated(stringMatcher(p.Match))
	}
	var gateways []*rbacv3.Principal
	for _, g := range t.gateways {
		gateways = append(gateways, authenticated(exactly(g)[0]))
	}
	if len(gateways) == 0 {
		return nobody()
	}
	if !t.http {
		return orPrincipals(gateways) // only DENY rules come here: a raw connection names no caller, so all of the gateway's are meant
	}
	return andPrincipals([]*rbacv3.Principal{
		orPrincipals(gateways),
		{Identifier: &rbacv3.Principal_Header{Header: header(callerHeader, p.Match, false)}},
	})
}

// notPrincipal is a principal that must not match. Over a raw connection an asserted caller can never be told to be the one
// that is left out, so that a DENY of all others denies all.
func (t rbacTranslator) notPrincipal(p model.Principal) *rbacv3.Principal {
	if p.Peer != "" && !t.http {
		return nobody()
	}
	return t.principal(p)
}

func (t rbacTranslator) namespace(ns string) *rbacv3.Principal {
	prefix := workloadsOf(t.trust)
	if !strings.Contains(ns, "*") {
		return authenticated(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix + ns + "/"}})
	}
	return authenticated(regex(regexp.QuoteMeta(prefix) + glob(ns, "[^/]*") + "/.*"))
}

func (t rbacTranslator) trustDomain(td string) *rbacv3.Principal {
	if !strings.Contains(td, "*") {
		return authenticated(inDomain(td)[0])
	}
	return authenticated(regex("spiffe://" + glob(td, "[^/]*") + "/.*"))
}

// glob makes a regular expression of a pattern in which "*" stands for any run of characters.
func glob(pattern, star string) string {
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return strings.Join(parts, star)
}

func (t rbacTranslator) operation(o model.Operation) []*rbacv3.Permission {
	var out []*rbacv3.Permission
	if t.http {
		out = bothPermissions(out, o.Hosts, o.NotHosts, func(m model.Match) *rbacv3.Permission {
			return headerPermission(header(":authority", m, true))
		})
		out = bothPermissions(out, o.Methods, o.NotMethods, func(m model.Match) *rbacv3.Permission {
			return headerPermission(header(":method", m, false))
		})
		out = bothPermissions(out, o.Paths, o.NotPaths, pathPermission)
	}
	return bothPermissions(out, o.Ports, o.NotPorts, portPermission)
}

func bothPermissions[V any](out []*rbacv3.Permission, yes, no []V, one func(V) *rbacv3.Permission) []*rbacv3.Permission {
	if len(yes) > 0 {
		out = append(out, orPermissions(each(yes, one)))
	}
	if len(no) > 0 {
		out = append(out, &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: orPermissions(each(no, one))}})
	}
	return out
}

func (t rbacTranslator) condition(w model.Condition, action model.Action) (ids []*rbacv3.Principal, perms []*rbacv3.Permission) {
	name, isHeader := strings.CutPrefix(w.Key, "request.headers[")
	switch {
	case isHeader && t.http:
		name = strings.TrimSuffix(name, "]")
		whole := func(m model.Match) *rbacv3.Permission { return headerPermission(header(name, m, false)) }
		listed := func(m model.Match) *rbacv3.Permission { return headerPermission(listedHeader(name, m)) }
		if action == model.Deny {
			perms = bothPermissions(bothPermissions(perms, w.Matches, nil, listed), nil, w.NotMatches, whole)
		} else {
			perms = bothPermissions(bothPermissions(perms, w.Matches, nil, whole), nil, w.NotMatches, listed)
		}
	case w.Key == "connection.sni":
		perms = bothPermissions(perms, w.Matches, w.NotMatches, func(m model.Match) *rbacv3.Permission {
			return &rbacv3.Permission{Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: stringMatcher(m)}}
		})
	case w.Key == "destination.ip":
		perms = bothPermissions(perms, w.Prefixes, w.NotPrefixes, func(p netip.Prefix) *rbacv3.Permission {
			return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: cidr(p)}}
		})
	case w.Key == "destination.port":
		perms = bothPermissions(perms, w.Ports, w.NotPorts, portPermission)
	case w.Key == "source.ip":
		ids = both(ids, w.Prefixes, w.NotPrefixes, directIP)
	case w.Key == "remote.ip":
		ids = both(ids, w.Prefixes, w.NotPrefixes, remoteIP)
	case strings.HasPrefix(w.Key, "source."):
		ids = both(ids, w.Sources, w.NotSources, func(s model.Source) *rbacv3.Principal { return andPrincipals(t.source(s)) })
	}
	return ids, perms
}

func pathPermission(m model.Match) *rbacv3.Permission {
	if m.Kind == model.Template {
		path := strings.ReplaceAll(strings.ReplaceAll(m.Value, "{**}", "**"), "{*}", "*")
		return &rbacv3.Permission{Rule: &rbacv3.Permission_UriTemplate{UriTemplate: &corev3.TypedExtensionConfig{
			Name: "uri_template", TypedConfig: anyOf(&uritemplatev3.UriTemplateMatchConfig{PathTemplate: path}),
		}}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{
		Rule: &matcherv3.PathMatcher_Path{Path: stringMatcher(m)},
	}}}
}

func portPermission(p uint16) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: uint32(p)}}
}

func headerPermission(h *routev3.HeaderMatcher) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: h}}
}

func header(name string, m model.Match, ignoreCase bool) *routev3.HeaderMatcher {
	if m.Kind == model.Present {
		return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
	}
	sm := stringMatcher(m)
	sm.IgnoreCase = ignoreCase
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: sm}}
}

// listedHeader matches a header of which any value in its list matches: "user,admin" holds "admin". What refuses must see
// through such lists, as servers do; what allows compares the whole. \C is any byte, be it no UTF-8.
func listedHeader(name string, m model.Match) *routev3.HeaderMatcher {
	const before, after = `(?:\C*,)?[ \t]*`, `[ \t]*(?:,\C*)?`
	h := header(name, m, false)
	switch m.Kind {
	case model.Exact:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: regex(before + quote(m.Value) + after)}
	case model.Prefix:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: regex(before + quote(m.Value) + `\C*`)}
	case model.Suffix:
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: regex(`\C*` + quote(m.Value) + after)}
	}
	return h
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
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expression}}}
}

func authenticated(m *matcherv3.StringMatcher) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Authenticated_{Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: m}}}
}

func directIP(p netip.Prefix) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: cidr(p)}}
}

func remoteIP(p netip.Prefix) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_RemoteIp{RemoteIp: cidr(p)}}
}

func cidr(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: u32(uint32(p.Bits()))}
}

func anyone() *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
}

func nobody() *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: anyone()}}
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
	if len(ids) == 1 {
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
	if len(rules) == 1 {
		return rules[0]
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: rules}}}
}
