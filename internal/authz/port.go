package authz

import (
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// OnPort specialises policies for one port of a workload. Rules for other ports disappear, and the remaining rules no
// longer test the port. Thus a caller learns only of the ports that it may call, and a raw port whose rules test only
// ports and callers can be decided in the handshake. On a raw port, an ALLOW rule that tests a request's fields in any
// alternative is dropped whole, as in Istio.
func OnPort(ps model.Policies, port uint16, http bool) model.Policies {
	out := model.Policies{DefaultAllow: ps.DefaultAllow}
	for _, p := range ps.Deny {
		if p = policyAt(p, port); len(p.Rules) > 0 {
			out.Deny = append(out.Deny, p)
		}
	}
	for _, p := range ps.Allow {
		if !http {
			p = withoutHTTP(p)
		}
		// a policy without rules still means: deny what no policy allows
		out.Allow = append(out.Allow, policyAt(p, port))
	}
	return out
}

// withoutHTTP drops the rules that test a request's fields.
func withoutHTTP(p *model.Policy) *model.Policy {
	if !slices.ContainsFunc(p.Rules, model.Rule.NeedsHTTP) {
		return p
	}
	out := *p
	out.Rules = slices.DeleteFunc(slices.Clone(p.Rules), model.Rule.NeedsHTTP)
	return &out
}

// policyAt returns the policy itself if no rule tests a port.
func policyAt(p *model.Policy, port uint16) *model.Policy {
	if !slices.ContainsFunc(p.Rules, namesPorts) {
		return p
	}
	out := *p
	out.Rules = nil
	for _, r := range p.Rules {
		if r, ok := ruleAt(r, port); ok {
			out.Rules = append(out.Rules, r)
		}
	}
	return &out
}

func namesPorts(r model.Rule) bool {
	return slices.ContainsFunc(r.To, func(o model.Operation) bool { return len(o.Ports)+len(o.NotPorts) > 0 }) ||
		slices.ContainsFunc(r.When, func(w model.Condition) bool { return len(w.Ports)+len(w.NotPorts) > 0 })
}

func ruleAt(r model.Rule, port uint16) (model.Rule, bool) {
	to, when := r.To, r.When
	r.To, r.When = nil, nil
	anything := len(to) == 0
	for _, o := range to {
		if !portMatches(o.Ports, o.NotPorts, port) {
			continue
		}
		o.Ports, o.NotPorts = nil, nil
		anything = anything || isEmpty(o)
		r.To = append(r.To, o)
	}
	if anything {
		r.To = nil // an alternative without fields matches every request
	} else if len(r.To) == 0 {
		return r, false
	}
	for _, w := range when {
		if len(w.Ports)+len(w.NotPorts) == 0 {
			r.When = append(r.When, w)
		} else if !portMatches(w.Ports, w.NotPorts, port) {
			return r, false
		}
	}
	return r, true
}

func portMatches(yes, no []uint16, port uint16) bool {
	return (len(yes) == 0 || slices.Contains(yes, port)) && !slices.Contains(no, port)
}

func isEmpty(o model.Operation) bool {
	return len(o.Hosts)+len(o.NotHosts)+len(o.Methods)+len(o.NotMethods)+len(o.Paths)+len(o.NotPaths) == 0
}
