package authz

import (
	"iter"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// Callers yields those of the sorted SPIFFE IDs that may pass, each with its verdict. r holds what else is known of
// their requests.
func (p Policies) Callers(among []string, r Request) iter.Seq2[string, Verdict] {
	return func(yield func(string, Verdict) bool) {
		for _, id := range p.candidates(among) {
			r.Caller = Is(id)
			if v := p.Decide(r); v.Decision != Denied && !yield(id, v) {
				return
			}
		}
	}
}

// candidates narrows the callers to those that the ALLOW rules name, where they name all: there may be thousands of
// both.
func (p Policies) candidates(among []string) []string {
	named, ok := p.Named()
	if !ok {
		return among
	}
	return slices.DeleteFunc(named, func(id string) bool {
		_, found := slices.BinarySearch(among, id)
		return !found
	})
}

// Named returns the only callers that can pass, sorted. ok is false if a rule does not name its callers exactly, so
// that others might pass.
func (p Policies) Named() (ids []string, ok bool) {
	if p.DefaultAllow {
		return nil, false
	}
	for _, r := range p.Allow {
		named, ok := namedBy(Any(r.From))
		if !ok {
			return nil, false
		}
		ids = append(ids, named...)
	}
	slices.Sort(ids)
	return slices.Compact(ids), true
}

// namedBy returns the only callers that a formula can match. ok is false if the formula does not name them exactly.
func namedBy(f Formula) (ids []string, ok bool) {
	switch f := f.(type) {
	case Caller:
		return []string{f.Match.Value}, f.Match.Kind == model.Exact && f.Segment == "" && f.Regex == ""
	case Any:
		for _, g := range f {
			named, ok := namedBy(g)
			if !ok {
				return nil, false
			}
			ids = append(ids, named...)
		}
		return ids, true
	case All:
		for _, g := range f {
			if ids, ok = namedBy(g); ok {
				return ids, true
			}
		}
	}
	return nil, false
}

// Asserting returns the part of caller, a pattern of identities at a peer, that the rule may match. q is what is known
// of their requests.
func (r *Rule) Asserting(q Request, caller model.Match) []model.Match {
	var out []model.Match
	for _, f := range r.From {
		if f.Of(&q) == Never {
			continue
		}
		if ms, ok := asserting(f, &q, caller); ok {
			out = append(out, ms...)
		} else {
			out = append(out, caller)
		}
	}
	return out
}

// asserting does so for a formula. ok is false if the formula does not restrict callers at peers.
func asserting(f Formula, q *Request, caller model.Match) (ms []model.Match, ok bool) {
	switch f := f.(type) {
	case Asserted:
		narrower := caller.Kind == model.Prefix && f.Segment == "" && strings.HasPrefix(f.Match.Value, caller.Value)
		return []model.Match{f.Match}, narrower
	case Any:
		for _, g := range f {
			if g.Of(q) == Never {
				continue
			}
			of, ok := asserting(g, q, caller)
			if !ok {
				return nil, false
			}
			ms = append(ms, of...)
		}
		return ms, true
	case All:
		for _, g := range f {
			if ms, ok = asserting(g, q, caller); ok {
				return ms, true
			}
		}
	}
	return nil, false
}
