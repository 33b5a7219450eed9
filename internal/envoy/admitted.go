package envoy

import (
	"cmp"
	"slices"

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
			if needsHTTP(r) {
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
	return each(ms, stringMatcher), whole
}

// callersOf covers the callers that a rule may match; exact is true when it covers no others.
func (t rbacTranslator) callersOf(r model.Rule) (ms []model.Match, exact bool) {
	anyone := model.Match{Kind: model.Prefix, Value: "spiffe://" + t.trust + "/"}
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

// principalMatches stay inside the trust domain whatever the pattern says: the roots are the mesh's own.
func principalMatches(list []model.Principal, trust string) []model.Match {
	var out []model.Match
	for _, p := range list {
		if p.Match.Kind == model.Present {
			out = append(out, model.Match{Kind: model.Prefix, Value: "spiffe://" + trust + "/"})
			continue
		}
		out = append(out, p.Match)
	}
	return out
}

func (t rbacTranslator) namespaceMatches(list []string, anyone model.Match, exact bool) ([]model.Match, bool) {
	var out []model.Match
	for _, ns := range list {
		if ns == "" || slices.Contains([]byte(ns), '*') {
			return []model.Match{anyone}, false
		}
		out = append(out, model.Match{Kind: model.Prefix, Value: "spiffe://" + t.trust + "/ns/" + ns + "/"})
	}
	return out, exact
}
