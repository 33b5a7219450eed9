// Package authz evaluates authorization policies on requests that may be only partly known.
//
// Server.Read brings a port's policies into a normal form. Envoy's RBAC is generated from that form. The control plane
// decides by it, too: who may call and must be told of a service, whom the handshake of a raw TCP port admits, and
// which rule causes a verdict. Comparisons use Kleene's three-valued logic (never, maybe, always), so a definite
// verdict holds however the request is completed.
package authz

import (
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// Truth is the value of a formula for a partly known request.
type Truth int

// The truth values in Kleene's order: "and" is the minimum, "or" the maximum.
const (
	Never Truth = iota
	Maybe
	Always
)

func (t Truth) String() string { return [...]string{"never", "maybe", "always"}[t] }

func truth(b bool) Truth {
	if b {
		return Always
	}
	return Never
}

// Decision is the outcome of a port's policies.
type Decision int

// The decisions. The zero value denies.
const (
	Denied Decision = iota
	Depends
	Allowed
)

func (d Decision) String() string { return [...]string{"denied", "depends", "allowed"}[d] }

// Verdict is a decision and the rules that cause it.
type Verdict struct {
	Decision Decision
	// By holds the rules that decide. If denied: the DENY rules that always match, or none if no ALLOW rule can match.
	// Otherwise: all rules that may match, or none if the mesh allows by default.
	By []Ruling
}

// Ruling is a rule and its truth for a request.
type Ruling struct {
	*Rule
	Truth Truth
}

// Policies are one port's policies in normal form.
type Policies struct {
	Deny, Allow  []Rule
	DefaultAllow bool // no ALLOW policy applies, and the mesh allows what no policy denies
}

// Decide returns the verdict for what is known of a request.
func (p Policies) Decide(r Request) Verdict {
	refusing, refused := match(p.Deny, &r)
	if refused == Always {
		return Verdict{By: slices.DeleteFunc(refusing, func(d Ruling) bool { return d.Truth != Always })}
	}
	allowing, allowed := match(p.Allow, &r)
	if p.DefaultAllow {
		allowed = Always
	}
	switch {
	case allowed == Never:
		return Verdict{}
	case allowed == Always && refused == Never:
		return Verdict{Decision: Allowed, By: allowing}
	}
	return Verdict{Decision: Depends, By: append(refusing, allowing...)}
}

// match returns the rules that may match, and the truth of their disjunction.
func match(rules []Rule, r *Request) ([]Ruling, Truth) {
	var out []Ruling
	most := Never
	for i := range rules {
		if t := rules[i].Of(r); t != Never {
			out = append(out, Ruling{&rules[i], t})
			most = max(most, t)
		}
	}
	return out, most
}

// Refs returns the ALLOW policies of a verdict, sorted, without duplicates.
func (v Verdict) Refs() []model.Ref {
	var out []model.Ref
	for _, r := range v.By {
		if r.Policy.Action == model.Allow {
			out = append(out, r.Policy.Ref)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
