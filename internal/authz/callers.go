package authz

import (
	"iter"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// Callers are those among some SPIFFE IDs, sorted, that could pass, each with its verdict; what else is known of their
// requests stands in r.
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

// candidates narrows the callers to those that the ALLOW rules name, where every rule names its callers exactly: there
// may be thousands of both.
func (p Policies) candidates(among []string) []string {
	if p.DefaultAllow {
		return among
	}
	var out []string
	for _, r := range p.Allow {
		named, ok := namedBy(Any(r.From))
		if !ok {
			return among
		}
		for _, id := range named {
			if _, found := slices.BinarySearch(among, id); found {
				out = append(out, id)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// namedBy are the callers outside which a formula matches nobody, where it names them exactly.
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

// Asserting narrows a caller at a peer, or a kind of them, to those whom the rule names, if it may match; q is what is
// known of their requests.
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

// asserting: ok is false where a formula names no callers at peers, or all of these.
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
