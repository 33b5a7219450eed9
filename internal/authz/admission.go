package authz

import (
	"cmp"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// Admission decides on connections to a raw TCP port in the TLS handshake, where only the caller is known. A caller of
// the mesh is admitted when Allowed covers it and Denied does not. Admission errs towards admitting: it includes every
// caller that some rule may let in.
type Admission struct {
	Allowed []model.Match // exact, prefix or suffix matches; sorted by value, all inside the trust domain
	Denied  []model.Match // exact or prefix matches
	Whole   bool          // the handshake decides alone; otherwise RBAC decides on the first byte
}

// Admission computes the admission of a raw TCP port.
func (s Server) Admission(p Policies) Admission {
	a := Admission{Whole: true}
	if p.DefaultAllow {
		a.Allowed = []model.Match{s.anyWorkload()}
	}
	for i := range p.Allow {
		of, exact := s.cover(&p.Allow[i])
		a.Allowed, a.Whole = append(a.Allowed, of...), a.Whole && exact
	}
	slices.SortFunc(a.Allowed, func(x, y model.Match) int {
		return cmp.Or(cmp.Compare(x.Value, y.Value), cmp.Compare(x.Kind, y.Kind))
	})
	a.Allowed = slices.Compact(a.Allowed)
	for i := range p.Deny {
		of, exact := s.cover(&p.Deny[i])
		if !exact || slices.ContainsFunc(of, func(m model.Match) bool { return m.Kind == model.Suffix }) {
			a.Denied, a.Whole = nil, false // only RBAC can decide
			return a
		}
		a.Denied = append(a.Denied, of...)
	}
	return a
}

func (s Server) anyWorkload() model.Match {
	return model.Match{Kind: model.Prefix, Value: WorkloadsOf(s.TrustDomain)}
}

// cover returns a set of callers that contains all that the rule can match. exact means that the rule matches every
// caller in it.
func (s Server) cover(r *Rule) (ms []model.Match, exact bool) {
	exact = Any(r.To).Of(&Request{}) == Always
	for _, f := range r.From {
		of, whole := s.coverOf(f)
		ms, exact = append(ms, of...), exact && whole
	}
	return ms, exact
}

func (s Server) coverOf(f Formula) (ms []model.Match, exact bool) {
	switch f := f.(type) {
	case Caller:
		if f.Segment == "" {
			return s.inDomain(f.Match), true
		}
	case Any:
		for _, g := range f {
			of, whole := s.coverOf(g)
			if !whole {
				return []model.Match{s.anyWorkload()}, false
			}
			ms = append(ms, of...)
		}
		return ms, true
	case All:
		for _, g := range f {
			if ms, exact = s.coverOf(g); exact {
				return ms, len(f) == 1
			}
		}
		return []model.Match{s.anyWorkload()}, len(f) == 0
	}
	return []model.Match{s.anyWorkload()}, false
}

// inDomain restricts a match to the trust domain, whatever its pattern: a root of the mesh may be valid for other
// domains too.
func (s Server) inDomain(m model.Match) []model.Match {
	domain := WorkloadsOf(s.TrustDomain)
	switch {
	case m.Kind == model.Present, m.Kind == model.Prefix && strings.HasPrefix(domain, m.Value):
		return []model.Match{s.anyWorkload()}
	case m.Kind == model.Suffix:
		return withSuffix(domain, m)
	case strings.HasPrefix(m.Value, domain):
		return []model.Match{m}
	}
	return nil
}

// withSuffix returns matches for the workload identities with a suffix. A suffix that overlaps the common prefix of all
// identities yields one exact identity.
func withSuffix(domain string, m model.Match) []model.Match {
	var out []model.Match
	if strings.Count(m.Value, "/") <= 2 { // the suffix lies within <namespace>/sa/<service account>
		out = append(out, m)
	}
	for n := 1; n <= min(len(domain), len(m.Value)); n++ {
		rest, reaches := strings.CutPrefix(m.Value, domain[len(domain)-n:])
		if parts := strings.Split(rest, "/"); reaches && len(parts) == 3 && parts[1] == "sa" {
			out = append(out, model.Match{Kind: model.Exact, Value: domain + rest})
		}
	}
	return out
}
