// Package authz is the algebra of authorization policies: who may do what, as far as a request is known.
//
// A port's policies are brought into a normal form once (Server.Read). Envoy's RBAC is written from that form, and the
// control plane decides by it: who may call and so must be told of a service, whom the handshake of a raw TCP port
// admits, what a verdict is and which rule gives it. A request need not be known in full: each comparison says never,
// maybe or always (Kleene's three-valued logic), so that a definite verdict holds however the request is completed.
package authz

import (
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// Truth of a formula for what is known of a request.
type Truth int

// The truths, in the order of Kleene's logic: "and" is the minimum, "or" the maximum.
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

// Decision of a port's policies.
type Decision int

// The decisions. The zero value denies.
const (
	Denied Decision = iota
	Depends
	Allowed
)

func (d Decision) String() string { return [...]string{"denied", "depends", "allowed"}[d] }

// Verdict is a decision and the rules that give it.
type Verdict struct {
	Decision Decision
	// By are the rules that decide. Denied: the DENY rules that always match; none where no ALLOW rule can match.
	// Otherwise all rules that may match; none where the mesh allows by default.
	By []Ruling
}

// Ruling is a rule and its truth for a request.
type Ruling struct {
	*Rule
	Truth Truth
}

// Policies are those of one port in normal form.
type Policies struct {
	Deny, Allow  []Rule
	DefaultAllow bool // no ALLOW policy applies, and the mesh allows what none denies
}

// Decide gives the verdict for what is known of a request.
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

// match are the rules that may match, and whether any does.
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

// Refs are the ALLOW policies of a verdict, each once, sorted.
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
