package envoy

import (
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
)

// admission is authz.Admission in Envoy's terms.
type admission struct {
	named    []string                   // callers admitted by exact identity, sorted
	patterns []*matcherv3.StringMatcher // all other admitted callers
	whole    bool                       // the handshake decides alone; otherwise network RBAC must follow
}

// everyone returns matchers for all admitted callers.
func (a admission) everyone() []*matcherv3.StringMatcher {
	return append(exactly(a.named...), a.patterns...)
}

// admitted translates the admission into matchers of certificate names.
func admitted(s authz.Server, ps authz.Policies) admission {
	who := s.Admission(ps)
	a := admission{whole: who.Whole}
	refused := coverageOf(who.Denied)
	for _, m := range who.Allowed {
		switch {
		case m.Kind == model.Exact && !refused.covers(m.Value):
			a.named = append(a.named, m.Value)
		case m.Kind == model.Exact:
		case m.Kind == model.Prefix && len(who.Denied) > 0:
			switch expression, done := except(m.Value, who.Denied); {
			case !done: // the filters after the handshake refuse them
				a.whole = false
				a.patterns = append(a.patterns, stringMatcher(m))
			case expression != "":
				a.patterns = append(a.patterns, regex(expression))
			}
		case m.Kind == model.Suffix:
			a.whole = a.whole && len(who.Denied) == 0
			a.patterns = append(a.patterns, regex(quote(authz.WorkloadsOf(s.TrustDomain))+".*"+quote(m.Value)))
		default:
			a.patterns = append(a.patterns, stringMatcher(m))
		}
	}
	return a
}
