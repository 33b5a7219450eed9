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

	"isthmus.dev/isthmus/internal/model"
)

// callerHeader carries the caller that a federation gateway asserts.
const callerHeader = "isthmus-caller"

// rbacTranslator turns policies into Envoy RBAC for HTTP or for raw TCP. On TCP (Istio: AuthorizationPolicy on TCP
// ports) an ALLOW rule with an HTTP field is dropped; a DENY rule loses the field.
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
			if !t.http && action == model.Allow && r.NeedsHTTP() {
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

func (t rbacTranslator) rule(r model.Rule, action model.Action) *rbacv3.Policy {
	var whenPrincipals []*rbacv3.Principal
	var whenPermissions []*rbacv3.Permission
	for _, w := range r.When {
		pr, pe := t.condition(w, action)
		whenPrincipals, whenPermissions = append(whenPrincipals, pr...), append(whenPermissions, pe...)
	}
	p := &rbacv3.Policy{}
	for _, f := range r.From {
		p.Principals = append(p.Principals, andPrincipals(append(t.source(f, action == model.Deny), whenPrincipals...)))
	}
	if len(r.From) == 0 {
		p.Principals = []*rbacv3.Principal{andPrincipals(whenPrincipals)}
	}
	for _, o := range r.To {
		p.Permissions = append(
			p.Permissions,
			andPermissions(append(t.operation(o, action == model.Deny), whenPermissions...)),
		)
	}
	if len(r.To) == 0 {
		p.Permissions = []*rbacv3.Permission{andPermissions(whenPermissions)}
	}
	return p
}

// source makes principals of the fields of a source. What cannot be told for sure is taken to match where that refuses
// (refusing), and not to match where it would allow.
func (t rbacTranslator) source(s model.Source, refusing bool) []*rbacv3.Principal {
	principal := func(refusing bool) func(model.Principal) *rbacv3.Principal {
		return func(p model.Principal) *rbacv3.Principal { return t.principal(p, refusing) }
	}
	domain := func(refusing bool) func(string) *rbacv3.Principal {
		return func(td string) *rbacv3.Principal { return t.trustDomain(td, refusing) }
	}
	var ids []*rbacv3.Principal
	ids = both(ids, s.Principals, nil, principal(refusing))
	ids = both(ids, nil, s.NotPrincipals, principal(!refusing))
	ids = both(ids, s.ServiceAccounts, s.NotServiceAccounts, principal(refusing))
	ids = both(ids, s.Namespaces, s.NotNamespaces, t.namespace)
	ids = both(ids, s.TrustDomains, nil, domain(refusing))
	ids = both(ids, nil, s.NotTrustDomains, domain(!refusing))
	for _, blocks := range [][2][]netip.Prefix{{s.IPBlocks, s.NotIPBlocks}, {s.RemoteIPBlocks, s.NotRemoteIPBlocks}} {
		ids = both(ids, blocks[0], nil, remoteIP(refusing))
		ids = both(ids, nil, blocks[1], remoteIP(!refusing))
	}
	return ids
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
// gateways asserts. A raw connection names no caller: refusing one refuses all that the gateway carries.
func (t rbacTranslator) principal(p model.Principal, refusing bool) *rbacv3.Principal {
	switch {
	case p.Peer == "":
		return authenticated(stringMatcher(p.Match))
	case t.http:
		return t.asserted(header(callerHeader, p.Match, false))
	case refusing:
		return t.ofGateways()
	}
	return nobody()
}

// asserted is a request of one of our own gateways for a caller at a peer.
func (t rbacTranslator) asserted(caller *routev3.HeaderMatcher) *rbacv3.Principal {
	if len(t.gateways) == 0 {
		return nobody()
	}
	return andPrincipals([]*rbacv3.Principal{
		t.ofGateways(), {Identifier: &rbacv3.Principal_Header{Header: caller}},
	})
}

func (t rbacTranslator) ofGateways() *rbacv3.Principal {
	if len(t.gateways) == 0 {
		return nobody()
	}
	return orPrincipals(each(exactly(t.gateways...), authenticated))
}

func (t rbacTranslator) namespace(ns string) *rbacv3.Principal {
	prefix := workloadsOf(t.trust)
	if !strings.Contains(ns, "*") {
		return authenticated(
			&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix + ns + "/"}},
		)
	}
	return authenticated(regex(regexp.QuoteMeta(prefix) + glob(ns, "[^/]*") + "/.*"))
}

// trustDomain compares the caller's: for what a gateway carries, that of the caller at the peer.
func (t rbacTranslator) trustDomain(td string, refusing bool) *rbacv3.Principal {
	in := inDomain(td)[0]
	if strings.Contains(td, "*") {
		in = regex("spiffe://" + glob(td, "[^/]*") + "/.*")
	}
	own := authenticated(in)
	if len(t.gateways) == 0 {
		return own
	}
	direct := andPrincipals([]*rbacv3.Principal{{Identifier: &rbacv3.Principal_NotId{NotId: t.ofGateways()}}, own})
	switch {
	case td == t.trust:
		return direct
	case t.http:
		return orPrincipals([]*rbacv3.Principal{direct, t.asserted(&routev3.HeaderMatcher{
			Name: callerHeader, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: in},
		})})
	case refusing:
		return orPrincipals([]*rbacv3.Principal{direct, t.ofGateways()})
	}
	return direct
}

// glob makes a regular expression of a pattern in which "*" stands for any run of characters.
func glob(pattern, star string) string {
	parts := strings.Split(pattern, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return strings.Join(parts, star)
}

// operation makes permissions of the fields of an operation. What can be spelled in several ways matches in all of them
// where that refuses (refusing), and as it is written where it allows.
func (t rbacTranslator) operation(o model.Operation, refusing bool) []*rbacv3.Permission {
	var out []*rbacv3.Permission
	if t.http {
		out = bothPermissions(out, o.Hosts, o.NotHosts, hostPermission)
		out = bothPermissions(out, o.Methods, nil, method(refusing))
		out = bothPermissions(out, nil, o.NotMethods, method(!refusing))
		out = bothPermissions(out, pathLists(o.Paths), nil, paths(refusing))
		out = bothPermissions(out, nil, pathLists(o.NotPaths), paths(!refusing))
	}
	return bothPermissions(out, o.Ports, o.NotPorts, portPermission)
}

func bothPermissions[V any](
	out []*rbacv3.Permission,
	yes, no []V,
	one func(V) *rbacv3.Permission,
) []*rbacv3.Permission {
	if len(yes) > 0 {
		out = append(out, orPermissions(each(yes, one)))
	}
	if len(no) > 0 {
		out = append(out, &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: orPermissions(each(no, one))}})
	}
	return out
}

func (t rbacTranslator) condition(
	w model.Condition,
	action model.Action,
) (ids []*rbacv3.Principal, perms []*rbacv3.Permission) {
	name, isHeader := strings.CutPrefix(w.Key, "request.headers[")
	switch {
	case isHeader && t.http:
		name = strings.TrimSuffix(name, "]")
		whole := func(m model.Match) *rbacv3.Permission { return headerPermission(header(name, m, false)) }
		listed := func(m model.Match) *rbacv3.Permission { return headerPermission(listedHeader(name, m)) }
		if strings.EqualFold(name, cookieHeader) {
			whole, listed = theCookie, anyCookie
		}
		if action == model.Deny {
			perms = bothPermissions(bothPermissions(perms, w.Matches, nil, listed), nil, w.NotMatches, whole)
		} else {
			perms = bothPermissions(bothPermissions(perms, w.Matches, nil, whole), nil, w.NotMatches, listed)
		}
	case w.Key == "connection.sni":
		perms = bothPermissions(perms, w.Matches, w.NotMatches, func(m model.Match) *rbacv3.Permission {
			return &rbacv3.Permission{
				Rule: &rbacv3.Permission_RequestedServerName{RequestedServerName: stringMatcher(m)},
			}
		})
	case w.Key == "destination.ip":
		perms = bothPermissions(perms, w.Prefixes, w.NotPrefixes, func(p netip.Prefix) *rbacv3.Permission {
			return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{DestinationIp: cidr(p)}}
		})
	case w.Key == "destination.port":
		perms = bothPermissions(perms, w.Ports, w.NotPorts, portPermission)
	case w.Key == "source.ip", w.Key == "remote.ip":
		refusing := action == model.Deny
		ids = both(both(ids, w.Prefixes, nil, remoteIP(refusing)), nil, w.NotPrefixes, remoteIP(!refusing))
	case strings.HasPrefix(w.Key, "source."):
		source := func(refusing bool) func(model.Source) *rbacv3.Principal {
			return func(s model.Source) *rbacv3.Principal { return andPrincipals(t.source(s, refusing)) }
		}
		refusing := action == model.Deny
		ids = both(both(ids, w.Sources, nil, source(refusing)), nil, w.NotSources, source(!refusing))
	}
	return ids, perms
}

// method compares the method. HTTP/2 carries it in any case, and some servers read "delete" as "DELETE".
func method(refusing bool) func(model.Match) *rbacv3.Permission {
	return func(m model.Match) *rbacv3.Permission { return headerPermission(header(":method", m, refusing)) }
}

func portPermission(p uint16) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationPort{DestinationPort: uint32(p)}}
}

func headerPermission(h *routev3.HeaderMatcher) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: h}}
}

func header(name string, m model.Match, ignoreCase bool) *routev3.HeaderMatcher {
	if m.Kind == model.Present {
		return &routev3.HeaderMatcher{
			Name:                 name,
			HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
		}
	}
	sm := stringMatcher(m)
	sm.IgnoreCase = ignoreCase
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: sm}}
}

// listedHeader matches a header of which any value in its list matches: "user,admin" holds "admin". What refuses must
// see through such lists, as servers do; what allows compares the whole. \C is any byte, be it no UTF-8.
func listedHeader(name string, m model.Match) *routev3.HeaderMatcher {
	const before, after = `(?:\C*,)?[ \t]*`, `[ \t]*(?:,\C*)?`
	switch m.Kind {
	case model.Exact:
		return headerRegex(name, before+quote(m.Value)+after)
	case model.Prefix:
		return headerRegex(name, before+quote(m.Value)+`\C*`)
	case model.Suffix:
		return headerRegex(name, `\C*`+quote(m.Value)+after)
	}
	return header(name, m, false)
}

func headerRegex(name, expression string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: regex(expression)},
	}
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

// remoteIP compares where a connection comes from. Nobody's word on that counts here (x-forwarded-for), so that the
// direct address would be the same; but a call that was handed over inside the proxy has none. One of which nobody has
// told whence it comes is taken to come from where that refuses.
func remoteIP(refusing bool) func(netip.Prefix) *rbacv3.Principal {
	from := func(p netip.Prefix) *rbacv3.Principal {
		return &rbacv3.Principal{Identifier: &rbacv3.Principal_RemoteIp{RemoteIp: cidr(p)}}
	}
	return func(p netip.Prefix) *rbacv3.Principal {
		if !refusing {
			return from(p)
		}
		somewhere := orPrincipals([]*rbacv3.Principal{from(everyIPv4), from(everyIPv6)})
		return orPrincipals([]*rbacv3.Principal{from(p), {Identifier: &rbacv3.Principal_NotId{NotId: somewhere}}})
	}
}

var (
	everyIPv4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	everyIPv6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

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
