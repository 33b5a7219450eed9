package envoy

import (
	"cmp"
	"slices"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"isthmus.dev/isthmus/internal/model"
)

// admission is what the handshake of a raw TCP port decides.
type admission struct {
	named    []string                   // callers that are admitted by their very names, sorted
	patterns []*matcherv3.StringMatcher // everyone else that is admitted
	whole    bool                       // the handshake alone enforces the policies; otherwise network RBAC must follow
}

// everyone are the matchers of all whom the handshake admits.
func (a admission) everyone() []*matcherv3.StringMatcher {
	return append(exactly(a.named...), a.patterns...)
}

// admitted lets in every caller that some ALLOW rule may match and that no DENY rule surely matches.
func (t rbacTranslator) admitted(ps model.Policies) admission {
	allowed, whole := t.allowed(ps)
	denied, sure := t.denied(ps)
	a := admission{whole: whole && sure}
	if !sure {
		denied = nil
	}
	refused := coverageOf(denied)
	for _, m := range allowed {
		switch {
		case m.Kind == model.Exact && !refused.covers(m.Value):
			a.named = append(a.named, m.Value)
		case m.Kind == model.Exact:
		case m.Kind == model.Prefix && len(denied) > 0:
			switch expression, done := except(m.Value, denied); {
			case !done: // the filters behind the handshake refuse them
				a.whole = false
				a.patterns = append(a.patterns, t.sanMatcher(m))
			case expression != "":
				a.patterns = append(a.patterns, regex(expression))
			}
		default:
			a.whole = a.whole && len(denied) == 0
			a.patterns = append(a.patterns, t.sanMatcher(m))
		}
	}
	return a
}

// allowed covers the callers that the ALLOW rules may match; exact is true when it covers no others. Sorted by value.
func (t rbacTranslator) allowed(ps model.Policies) (ms []model.Match, exact bool) {
	if len(ps.Allow) == 0 {
		if ps.DefaultAllow {
			return []model.Match{{Kind: model.Prefix, Value: workloadsOf(t.trust)}}, true
		}
		return nil, true
	}
	exact = true
	for _, p := range ps.Allow {
		for _, r := range p.Rules {
			if r.NeedsHTTP() {
				continue // dropped on TCP, as Istio does
			}
			of, whole := t.callersOf(r)
			exact = exact && whole
			ms = append(ms, of...)
		}
	}
	slices.SortFunc(
		ms,
		func(a, b model.Match) int { return cmp.Or(cmp.Compare(a.Value, b.Value), cmp.Compare(a.Kind, b.Kind)) },
	)
	return slices.Compact(ms), exact
}

// denied are the callers that the DENY rules match. It is not sure when a rule asks for more than who calls, or names
// callers by their last part; then only RBAC can tell.
func (t rbacTranslator) denied(ps model.Policies) (ms []model.Match, sure bool) {
	for _, p := range ps.Deny {
		for _, r := range p.Rules {
			if slices.ContainsFunc(r.From, model.Source.NamesPeers) {
				return nil, false
			}
			of, exact := t.callersOf(connectionOnly(r))
			if !exact || slices.ContainsFunc(of, func(m model.Match) bool { return m.Kind == model.Suffix }) {
				return nil, false
			}
			ms = append(ms, of...)
		}
	}
	return ms, true
}

// connectionOnly is what a DENY rule means on raw TCP, where the fields of a request are dropped.
func connectionOnly(r model.Rule) model.Rule {
	if slices.ContainsFunc(r.To, func(o model.Operation) bool { return len(o.Ports)+len(o.NotPorts) == 0 }) {
		r.To = nil
	}
	r.When = slices.DeleteFunc(
		slices.Clone(r.When),
		func(w model.Condition) bool { return strings.HasPrefix(w.Key, "request.") },
	)
	return r
}

// allowsAll: whoever calls, nothing is asked.
func allowsAll(ps model.Policies) bool {
	if len(ps.Deny) > 0 {
		return false
	}
	return len(ps.Allow) == 0 && ps.DefaultAllow || slices.ContainsFunc(ps.Allow, func(p *model.Policy) bool {
		return slices.ContainsFunc(p.Rules, func(r model.Rule) bool { return len(r.From)+len(r.To)+len(r.When) == 0 })
	})
}

// callersOf covers the callers that a rule may match; exact is true when it covers no others.
func (t rbacTranslator) callersOf(r model.Rule) (ms []model.Match, exact bool) {
	anyone := model.Match{Kind: model.Prefix, Value: workloadsOf(t.trust)}
	exact = len(r.To) == 0 && len(r.When) == 0
	if len(r.From) == 0 {
		return []model.Match{anyone}, exact
	}
	for _, s := range r.From {
		var of []model.Match
		fields := 0
		for _, list := range [][]model.Principal{s.Principals, s.ServiceAccounts} {
			if len(list) > 0 {
				fields++
				of = principalMatches(list, t.trust)
			}
		}
		if len(s.Namespaces) > 0 {
			fields++
			if fields == 1 {
				of, exact = t.namespaceMatches(s.Namespaces, anyone, exact)
			}
		}
		if fields == 0 {
			of, exact = []model.Match{anyone}, false
		}
		narrowed := len(
			s.NotPrincipals,
		) + len(
			s.NotNamespaces,
		) + len(
			s.NotServiceAccounts,
		) + len(
			s.TrustDomains,
		) + len(
			s.NotTrustDomains,
		) +
			len(
				s.IPBlocks,
			) + len(
			s.NotIPBlocks,
		) + len(
			s.RemoteIPBlocks,
		) + len(
			s.NotRemoteIPBlocks,
		)
		exact = exact && fields == 1 && narrowed == 0
		ms = append(ms, of...)
	}
	return ms, exact
}

// principalMatches stay inside the trust domain whatever the pattern says: a root of the mesh may vouch for others too.
// A suffix is kept as it is; sanMatcher holds it inside.
func principalMatches(list []model.Principal, trust string) []model.Match {
	domain := workloadsOf(trust)
	var out []model.Match
	for _, p := range list {
		switch m := p.Match; {
		case m.Kind == model.Present, m.Kind == model.Prefix && strings.HasPrefix(domain, m.Value):
			out = append(out, model.Match{Kind: model.Prefix, Value: domain})
		case m.Kind == model.Suffix, strings.HasPrefix(m.Value, domain):
			out = append(out, m)
		}
	}
	return out
}

func (t rbacTranslator) sanMatcher(m model.Match) *matcherv3.StringMatcher {
	if m.Kind == model.Suffix {
		return regex(quote(workloadsOf(t.trust)) + ".*" + quote(m.Value))
	}
	return stringMatcher(m)
}

func (t rbacTranslator) namespaceMatches(list []string, anyone model.Match, exact bool) ([]model.Match, bool) {
	var out []model.Match
	for _, ns := range list {
		if ns == "" || slices.Contains([]byte(ns), '*') {
			return []model.Match{anyone}, false
		}
		out = append(out, model.Match{Kind: model.Prefix, Value: workloadsOf(t.trust) + ns + "/"})
	}
	return out, exact
}
