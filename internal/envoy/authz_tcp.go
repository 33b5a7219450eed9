package envoy

import (
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
)

// admission is what the handshake of a raw TCP port decides, as Envoy can be told of it.
type admission struct {
	named    []string                   // callers that are admitted by their very names, sorted
	patterns []*matcherv3.StringMatcher // everyone else that is admitted
	whole    bool                       // the handshake alone enforces the policies; otherwise network RBAC must follow
}

// everyone are the matchers of all whom the handshake admits.
func (a admission) everyone() []*matcherv3.StringMatcher {
	return append(exactly(a.named...), a.patterns...)
}

// admitted writes who is admitted as matchers of the names in certificates.
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
			case !done: // the filters behind the handshake refuse them
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
