package authz

import (
	"iter"
	"slices"

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
