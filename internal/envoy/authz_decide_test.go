package envoy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
)

// TestVerdictsAreThoseOfEnvoy: for random policies, the verdict on a request that is known in full is what the RBAC
// that is written of the same policies decides, also where they are read for its port alone; and the verdict on one
// that is known in part holds for that request, too. What the handshake of a raw port admits is whom the policies let
// in.
func TestVerdictsAreThoseOfEnvoy(t *testing.T) {
	const seed, rounds, requests = 7, 4_000, 12
	w := authzWorld{rand.New(rand.NewPCG(seed, 0))}
	counts := map[string]int{}
	for range rounds {
		server := authz.Server{
			HTTP: w.IntN(2) == 0, TrustDomain: "m.example",
			Gateways: pick(w, nil, []string{gatewayID},
				[]string{gatewayID, "spiffe://m.example/ns/isthmus-system/sa/gateway2"}),
		}
		written := w.policies()
		ps := server.Read(written)
		deny, allow := denyRBAC(ps), allowRBAC(ps)
		for range requests {
			r := w.request(server.HTTP)
			want := authz.Denied
			if !enforced(deny, r) && (allow == nil || enforced(allow, r)) {
				want = authz.Allowed
			}
			got := ps.Decide(r.known(w, 1))
			if got.Decision != want {
				t.Fatalf("seed %d: %s, and Envoy says %s\nserver %+v\nrequest %+v\n%s", seed, got.Decision, want,
					server, r,
					rulesText(written))
			}
			if wrong := wrongRulings(got, deny, allow, r); wrong != "" {
				t.Fatalf("seed %d: %s\nrequest %+v\n%s", seed, wrong, r, rulesText(written))
			}
			onPort := server.Read(authz.OnPort(written, r.port, server.HTTP)).Decide(r.known(w, 1))
			if onPort.Decision != want {
				t.Fatalf("seed %d: on port %d it is %s, and Envoy says %s\nserver %+v\nrequest %+v\n%s", seed, r.port,
					onPort.Decision, want, server, r, rulesText(written))
			}
			counts[want.String()]++
			partly := ps.Decide(r.known(w, 2))
			if partly.Decision != authz.Depends && partly.Decision != want {
				t.Fatalf("seed %d: a part of it is %s, and Envoy says %s\nserver %+v\nrequest %+v\n%s", seed,
					partly.Decision,
					want, server, r, rulesText(written))
			}
			counts["in part "+partly.Decision.String()]++
		}
		if !server.HTTP {
			for _, id := range callerIDs {
				counts[handshake(t, server, ps, written, id)]++
			}
		}
	}
	for _, kind := range []string{
		"denied", "allowed", "in part denied", "in part allowed", "in part depends", "admitted", "kept out",
		"left to rules",
	} {
		if counts[kind] < 400 {
			t.Errorf("only %d are %s: the test proves too little (%v)", counts[kind], kind, counts)
		}
	}
	t.Log(counts)
}

// handshake compares whom it admits with the verdict on a caller of whom nothing else is known.
func handshake(t *testing.T, s authz.Server, ps authz.Policies, written model.Policies, id string) string {
	t.Helper()
	a := admitted(s, ps)
	in := slices.ContainsFunc(a.everyone(), func(m *matcherv3.StringMatcher) bool { return textMatches(m, id) }) &&
		strings.HasPrefix(id, "spiffe://m.example/ns/")
	verdict := ps.Decide(authz.Request{Caller: authz.Is(id)}).Decision
	inMesh := strings.HasPrefix(id, "spiffe://m.example/ns/") // the chain of trust admits nobody else
	switch {
	case !inMesh && in, inMesh && !in && verdict != authz.Denied, a.whole && in && verdict != authz.Allowed:
		t.Fatalf("%s: admitted %v, whole %v, and the verdict is %s\n%s", id, in, a.whole, verdict, rulesText(written))
	case !a.whole && in:
		return "left to rules"
	case in:
		return "admitted"
	}
	return "kept out"
}

// wrongRulings: every rule that a verdict names matches in Envoy, too, and no other does.
func wrongRulings(v authz.Verdict, deny, allow *rbacv3.RBAC, r envoyRequest) string {
	for _, by := range v.By {
		rbac := allow
		if by.Policy.Action == model.Deny {
			rbac = deny
		}
		if !policyMatches(rbac.GetPolicies()[policyName(by.Policy.Name, by.Number)], r) {
			return fmt.Sprintf("%s#%d decides, and does not match in Envoy", by.Policy.Name, by.Number)
		}
	}
	if n := len(v.By); v.Decision == authz.Allowed && allow != nil && n != matching(allow, r) ||
		v.Decision == authz.Denied && n != matching(deny, r) {
		return fmt.Sprintf("%d rules decide, and in Envoy others match", n)
	}
	return ""
}

func rulesText(ps model.Policies) string {
	var b strings.Builder
	for _, p := range slices.Concat(ps.Deny, ps.Allow) {
		for _, r := range p.Rules {
			fmt.Fprintf(&b, "%s %s#%d %+v\n", p.Action, p.Name, r.Number, r)
		}
	}
	return b.String()
}

// What follows evaluates Envoy's RBAC as Envoy documents it (envoy.config.rbac.v3).

// envoyRequest is a request as Envoy sees it.
type envoyRequest struct {
	caller  string            // "": no certificate
	headers map[string]string // with :method and :authority, and what a gateway asserts
	path    string
	source  netip.Addr // zero: none
	address netip.Addr
	port    uint16
	sni     string
	isHTTP  bool
	nowhere bool
}

func enforced(rbac *rbacv3.RBAC, r envoyRequest) bool { return matching(rbac, r) > 0 }

func matching(rbac *rbacv3.RBAC, r envoyRequest) (n int) {
	for _, p := range rbac.GetPolicies() {
		if policyMatches(p, r) {
			n++
		}
	}
	return n
}

func policyMatches(p *rbacv3.Policy, r envoyRequest) bool {
	return slices.ContainsFunc(p.GetPrincipals(), func(id *rbacv3.Principal) bool { return principalMatches(id, r) }) &&
		slices.ContainsFunc(p.GetPermissions(), func(x *rbacv3.Permission) bool { return permissionMatches(x, r) })
}

func principalMatches(p *rbacv3.Principal, r envoyRequest) bool {
	switch id := p.Identifier.(type) {
	case *rbacv3.Principal_Any:
		return id.Any
	case *rbacv3.Principal_NotId:
		return !principalMatches(id.NotId, r)
	case *rbacv3.Principal_AndIds:
		return !slices.ContainsFunc(id.AndIds.Ids, func(p *rbacv3.Principal) bool { return !principalMatches(p, r) })
	case *rbacv3.Principal_OrIds:
		return slices.ContainsFunc(id.OrIds.Ids, func(p *rbacv3.Principal) bool { return principalMatches(p, r) })
	case *rbacv3.Principal_Authenticated_:
		return r.caller != "" && textMatches(id.Authenticated.PrincipalName, r.caller)
	case *rbacv3.Principal_Header:
		return headerMatches(id.Header, r)
	case *rbacv3.Principal_RemoteIp:
		return !r.nowhere && within(id.RemoteIp.AddressPrefix, id.RemoteIp.PrefixLen.GetValue(), r.source)
	}
	panic(fmt.Sprintf("%T", p.Identifier))
}

func permissionMatches(p *rbacv3.Permission, r envoyRequest) bool {
	switch rule := p.Rule.(type) {
	case *rbacv3.Permission_Any:
		return rule.Any
	case *rbacv3.Permission_NotRule:
		return !permissionMatches(rule.NotRule, r)
	case *rbacv3.Permission_AndRules:
		return !slices.ContainsFunc(rule.AndRules.Rules,
			func(p *rbacv3.Permission) bool { return !permissionMatches(p, r) })
	case *rbacv3.Permission_OrRules:
		return slices.ContainsFunc(rule.OrRules.Rules,
			func(p *rbacv3.Permission) bool { return permissionMatches(p, r) })
	case *rbacv3.Permission_Header:
		return headerMatches(rule.Header, r)
	case *rbacv3.Permission_UrlPath:
		return r.isHTTP && textMatches(rule.UrlPath.GetPath(), r.path)
	case *rbacv3.Permission_RequestedServerName:
		return textMatches(rule.RequestedServerName, r.sni)
	case *rbacv3.Permission_DestinationIp:
		return within(rule.DestinationIp.AddressPrefix, rule.DestinationIp.PrefixLen.GetValue(), r.address)
	case *rbacv3.Permission_DestinationPort:
		return rule.DestinationPort == uint32(r.port)
	}
	panic(fmt.Sprintf("%T", p.Rule))
}

func headerMatches(h *routev3.HeaderMatcher, r envoyRequest) bool {
	v, there := r.headers[strings.ToLower(h.Name)]
	there = there || h.TreatMissingHeaderAsEmpty
	if r := h.GetRangeMatch(); r != nil {
		n, err := strconv.ParseInt(v, 10, 64)
		return h.InvertMatch != (there && err == nil && n >= r.Start && n < r.End)
	}
	return h.InvertMatch != (there && (h.GetPresentMatch() || textMatches(h.GetStringMatch(), v)))
}

func within(prefix string, bits uint32, a netip.Addr) bool {
	return netip.PrefixFrom(netip.MustParseAddr(prefix), int(bits)).Contains(a)
}

func textMatches(m *matcherv3.StringMatcher, v string) bool {
	fold := func(s string) string {
		if m.IgnoreCase {
			return strings.ToLower(s) // the test has ASCII alone
		}
		return s
	}
	switch p := m.MatchPattern.(type) {
	case *matcherv3.StringMatcher_Exact:
		return fold(v) == fold(p.Exact)
	case *matcherv3.StringMatcher_Prefix:
		return strings.HasPrefix(fold(v), fold(p.Prefix))
	case *matcherv3.StringMatcher_Suffix:
		return strings.HasSuffix(fold(v), fold(p.Suffix))
	case *matcherv3.StringMatcher_Contains:
		return strings.Contains(fold(v), fold(p.Contains))
	case *matcherv3.StringMatcher_SafeRegex:
		return wholeText(p.SafeRegex.Regex).MatchString(v)
	}
	panic(fmt.Sprintf("%T", m.MatchPattern))
}

var wholeTexts = map[string]*regexp.Regexp{}

func wholeText(expression string) *regexp.Regexp {
	if wholeTexts[expression] == nil {
		wholeTexts[expression] = regexp.MustCompile(`\A(?:` + strings.ReplaceAll(expression, `\C`, `(?s:.)`) + `)\z`)
	}
	return wholeTexts[expression]
}

// authzWorld makes policies and requests of few values, so that they meet.
type authzWorld struct{ *rand.Rand }

const gatewayID = "spiffe://m.example/ns/isthmus-system/sa/gateway"

var callerIDs = []string{
	"spiffe://m.example/ns/a/sa/x", "spiffe://m.example/ns/a/sa/y", "spiffe://m.example/ns/b/sa/x",
	"spiffe://m.example/ns/ab/sa/y",
	"spiffe://other.example/ns/a/sa/x", gatewayID,
	"spiffe://m.example/ns/a/b/sa/x", // in no certificate
}

var peerIDs = []string{"spiffe://p.example/ns/a/sa/x", "spiffe://p.example/ns/b/sa/y", "spiffe://q.example/ns/a/sa/x"}

func pick[T any](w authzWorld, of ...T) T { return of[w.IntN(len(of))] }

// some is an empty list most often.
func some[T any](w authzWorld, one func() T) []T {
	var out []T
	for n := max(0, w.IntN(6)-3); n > 0; n-- {
		out = append(out, one())
	}
	return out
}

func (w authzWorld) policies() model.Policies {
	ps := model.Policies{DefaultAllow: w.IntN(2) == 0}
	for n := range w.IntN(3) {
		ps.Deny = append(ps.Deny, w.policy(fmt.Sprintf("ns/deny%d", n), model.Deny))
	}
	for n := range w.IntN(4) {
		ps.Allow = append(ps.Allow, w.policy(fmt.Sprintf("ns/allow%d", n), model.Allow))
	}
	return ps
}

func (w authzWorld) policy(name string, action model.Action) *model.Policy {
	p := &model.Policy{Name: name, Action: action, Ref: model.Ref(name)}
	for n := range w.IntN(3) {
		r := model.Rule{Number: n, From: some(w, w.source), To: some(w, w.operation), When: some(w, w.condition)}
		p.Rules = append(p.Rules, r)
	}
	return p
}

func (w authzWorld) principal() model.Principal {
	return pick(w,
		model.Principal{Match: model.Match{Value: pick(w, callerIDs...)}},
		model.Principal{Match: model.Match{Value: pick(w, callerIDs...)}},
		model.Principal{Match: model.Match{
			Kind:  model.Prefix,
			Value: pick(w, "spiffe://", "spiffe://m.example/ns/a", "spiffe://m.example/ns/a/"),
		}},
		model.Principal{Match: model.Match{
			Kind:  model.Suffix,
			Value: pick(w, "/sa/x", "x", "/ns/a/sa/x", "a/sa/y", "m.example/ns/b/sa/x"),
		}},
		model.Principal{Match: model.Match{Kind: model.Present}},
		model.Principal{Match: model.Match{Value: pick(w, peerIDs...)}, Peer: "p"},
		model.Principal{Match: model.Match{
			Kind:  model.Prefix,
			Value: pick(w, "spiffe://p.example/", "spiffe://p.example/ns/a"),
		}, Peer: "p"},
	)
}

func (w authzWorld) account() model.Principal {
	return model.Principal{Match: model.Match{Value: pick(w, callerIDs[:3]...)}}
}

func (w authzWorld) namespace() string { return pick(w, "a", "b", "a*", "*b", "*", "isthmus-system") }

func (w authzWorld) trustDomain() string { return pick(w, "m.example", "p.example", "*.example", "q*") }

func (w authzWorld) prefix() netip.Prefix {
	return netip.MustParsePrefix(pick(w, "10.0.0.0/8", "10.0.0.1/32", "192.0.2.0/24", "2001:db8::/32", "0.0.0.0/0"))
}

func (w authzWorld) source() model.Source {
	if w.IntN(2) == 0 { // with so many fields hardly anything would match
		return model.Source{Principals: []model.Principal{w.principal(), w.principal()}}
	}
	return model.Source{
		Principals: some(w, w.principal), NotPrincipals: some(w, w.principal),
		Namespaces: some(w, w.namespace), NotNamespaces: some(w, w.namespace),
		TrustDomains: some(w, w.trustDomain), NotTrustDomains: some(w, w.trustDomain),
		ServiceAccounts: some(w, w.account), NotServiceAccounts: some(w, w.account),
		IPBlocks: some(w, w.prefix), NotIPBlocks: some(w, w.prefix), RemoteIPBlocks: some(w, w.prefix),
	}
}

func (w authzWorld) text(values ...string) func() model.Match {
	return func() model.Match {
		v := pick(w, values...)
		return pick(w, model.Match{Value: v}, model.Match{Value: v},
			model.Match{Kind: model.Prefix, Value: v[:len(v)/2]},
			model.Match{Kind: model.Suffix, Value: v[len(v)/2:]}, model.Match{Kind: model.Present})
	}
}

func (w authzWorld) path() model.Match {
	if w.IntN(4) == 0 {
		return model.Match{Kind: model.Template, Value: pick(w, "/a/{*}", "/a/{**}", "/{*}/b")}
	}
	return w.text("/a", "/a/b", "/a%40b", "/")()
}

func (w authzWorld) ports() uint16 { return pick[uint16](w, 80, 8080) }

func (w authzWorld) operation() model.Operation {
	hosts, methods := w.text("web", "Web.default", "a.example"), w.text("GET", "POST", "delete")
	return model.Operation{
		Hosts: some(w, hosts), NotHosts: some(w, hosts), Methods: some(w, methods), NotMethods: some(w, methods),
		Paths: some(w, w.path), NotPaths: some(w, w.path), Ports: some(w, w.ports), NotPorts: some(w, w.ports),
	}
}

func (w authzWorld) condition() model.Condition {
	c := model.Condition{Key: pick(w, "request.headers[x-role]", "request.headers[Cookie]", "connection.sni",
		"destination.ip",
		"destination.port", "source.ip", "remote.ip", "source.principal", "source.namespace", "source.trustDomain")}
	values := func() []model.Match { return some(w, w.text("admin", "role=admin", "user")) }
	sources := func(s model.Source) []model.Source {
		if w.IntN(2) == 0 {
			return nil
		}
		return []model.Source{s}
	}
	switch c.Key {
	case "request.headers[x-role]", "request.headers[Cookie]":
		c.Matches, c.NotMatches = values(), values()
	case "connection.sni":
		c.Matches, c.NotMatches = some(w, w.text("a.caller", "b.caller")), some(w, w.text("a.caller", "b.caller"))
	case "destination.ip", "source.ip", "remote.ip":
		c.Prefixes, c.NotPrefixes = some(w, w.prefix), some(w, w.prefix)
	case "destination.port":
		c.Ports, c.NotPorts = some(w, w.ports), some(w, w.ports)
	case "source.principal":
		c.Sources = sources(model.Source{Principals: []model.Principal{w.principal(), w.principal()}})
		c.NotSources = sources(model.Source{Principals: []model.Principal{w.principal()}})
	case "source.namespace":
		c.Sources = sources(model.Source{Namespaces: []string{w.namespace()}})
		c.NotSources = sources(model.Source{Namespaces: []string{w.namespace()}})
	case "source.trustDomain":
		c.Sources = sources(model.Source{TrustDomains: []string{w.trustDomain()}})
		c.NotSources = sources(model.Source{TrustDomains: []string{w.trustDomain()}})
	}
	return c
}

func (w authzWorld) address() netip.Addr {
	return netip.MustParseAddr(pick(w, "10.0.0.1", "10.9.9.9", "192.0.2.7", "2001:db8::1", "198.51.100.1"))
}

func (w authzWorld) request(http bool) envoyRequest {
	r := envoyRequest{
		caller: pick(w, append(callerIDs, gatewayID, "")...), source: w.address(), address: w.address(),
		port: w.ports(), sni: pick(w, "a.caller", "b.caller", ""), isHTTP: http, nowhere: w.IntN(6) == 0,
		headers: map[string]string{}, path: pick(w, "/", "/a", "/a/b", "/a//b", "/a%40b", "/a@b", "/%61", "/c"),
	}
	if !http {
		return r
	}
	r.headers[":method"] = pick(w, "GET", "POST", "DELETE", "get", "delete")
	r.headers[":authority"] = pick(w, "web", "WEB", "web:80", "web.default.", "a.example:1", "b.example")
	maybe := func(name string, values ...string) {
		if w.IntN(len(values)+1) > 0 {
			r.headers[name] = pick(w, values...)
		}
	}
	maybe("x-role", "admin", "user,admin", "admins", "", "user, role=admin")
	maybe("cookie", "role=admin", "a=b; role=admin", "role=user; role=admin", `role="admin"`, "admin")
	maybe(callerHeader, append(peerIDs, "", "spiffe://m.example/ns/a/sa/x")...)
	return r
}

// known is what is known of it: all, or each with a chance of one to n.
func (r envoyRequest) known(w authzWorld, n int) authz.Request {
	keep := func() bool { return w.IntN(n) == 0 }
	text := func(v string, there bool) authz.Text {
		switch {
		case !keep() && (!there || v == "" || keep()):
			return authz.Text{}
		case !there:
			return authz.None()
		case n > 1 && v != "" && keep():
			return authz.Begins(v[:1+w.IntN(len(v))])
		}
		return authz.Is(v)
	}
	q := authz.Request{
		Caller: text(r.caller, r.caller != ""), SNI: text(r.sni, r.sni != ""),
		Headers: map[string]authz.Text{},
	}
	if keep() {
		q.Port = r.port
	}
	if keep() {
		q.Destination = authz.At(r.address)
	}
	switch {
	case keep() && r.nowhere:
		q.Source = authz.Nowhere()
	case keep() && !r.nowhere:
		q.Source = authz.At(r.source)
	}
	if !r.isHTTP {
		return q
	}
	header := func(name string) authz.Text { v, there := r.headers[name]; return text(v, there) }
	q.Method, q.Host, q.Path, q.Asserted = header(":method"), header(":authority"), text(r.path, true),
		header(callerHeader)
	for _, name := range []string{"x-role", "cookie"} {
		q.Headers[name] = header(name)
	}
	return q
}
