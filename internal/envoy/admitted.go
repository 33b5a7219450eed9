package envoy

import (
	"cmp"
	"slices"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"isthmus.dev/isthmus/internal/model"
)

// admitted are the identities that a raw TCP port's handshake lets in: every caller that some ALLOW rule may match.
// whole is true when the handshake alone enforces the policies; otherwise network RBAC must follow.
func (t rbacTranslator) admitted(ps model.Policies) (sans []*matcherv3.StringMatcher, whole bool) {
	whole = len(ps.Deny) == 0
	if len(ps.Allow) == 0 {
		if ps.DefaultAllow {
			return inDomain(t.trust), whole
		}
		return nil, true
	}
	found := map[model.Match]bool{}
	for _, p := range ps.Allow {
		for _, r := range p.Rules {
			if r.NeedsHTTP() {
				continue // dropped on TCP, as Istio does
			}
			ms, exact := t.callersOf(r)
			whole = whole && exact
			for _, m := range ms {
				found[m] = true
			}
		}
	}
	ms := make([]model.Match, 0, len(found))
	for m := range found {
		ms = append(ms, m)
	}
	slices.SortFunc(ms, func(a, b model.Match) int { return cmp.Or(cmp.Compare(a.Value, b.Value), cmp.Compare(a.Kind, b.Kind)) })
	return each(ms, t.sanMatcher), whole
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
		narrowed := len(s.NotPrincipals) + len(s.NotNamespaces) + len(s.NotServiceAccounts) + len(s.TrustDomains) + len(s.NotTrustDomains) +
			len(s.IPBlocks) + len(s.NotIPBlocks) + len(s.RemoteIPBlocks) + len(s.NotRemoteIPBlocks)
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
