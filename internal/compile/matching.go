package compile

import (
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
)

// caller is an identity together with its parts, taken apart once.
type caller struct {
	id                        string
	namespace, serviceAccount string
}

// mayCall says whether some request of the caller could pass, and by which policies.
func mayCall(ps model.Policies, id caller) ([]model.Ref, bool) {
	for _, p := range ps.Deny {
		if slices.ContainsFunc(p.Rules, func(r model.Rule) bool { return alwaysMatches(r, id) }) {
			return nil, false
		}
	}
	if len(ps.Allow) == 0 {
		return nil, ps.DefaultAllow
	}
	var refs []model.Ref
	for _, p := range ps.Allow {
		if slices.ContainsFunc(p.Rules, func(r model.Rule) bool { return mayMatch(r, id) }) {
			refs = append(refs, p.Ref)
		}
	}
	return refs, len(refs) > 0
}

// mayMatch: could the rule match a request of this caller?
func mayMatch(r model.Rule, id caller) bool {
	if len(r.From) > 0 && !slices.ContainsFunc(r.From, func(s model.Source) bool { return sourceMatches(s, id) }) {
		return false
	}
	for _, w := range r.When {
		if len(w.Sources) > 0 && !slices.ContainsFunc(w.Sources, func(s model.Source) bool { return sourceMatches(s, id) }) {
			return false
		}
		if slices.ContainsFunc(w.NotSources, func(s model.Source) bool { return sourceMatches(s, id) }) {
			return false
		}
	}
	return true
}

// alwaysMatches: does the rule match every request of this caller?
func alwaysMatches(r model.Rule, id caller) bool {
	if len(r.To) > 0 || len(r.When) > 0 {
		return false
	}
	return len(r.From) == 0 || slices.ContainsFunc(r.From, func(s model.Source) bool {
		return len(s.IPBlocks)+len(s.NotIPBlocks)+len(s.RemoteIPBlocks)+len(s.NotRemoteIPBlocks) == 0 && sourceMatches(s, id)
	})
}

// sourceMatches compares the fields that speak of identity.
func sourceMatches(s model.Source, id caller) bool {
	in := func(ps []model.Principal) bool {
		return slices.ContainsFunc(ps, func(p model.Principal) bool { return p.Peer == "" && stringMatches(p.Match, id.id) })
	}
	inNamespaces := func(list []string) bool {
		return slices.ContainsFunc(list, func(v string) bool { return globMatches(v, id.namespace) })
	}
	td, _, _ := strings.Cut(strings.TrimPrefix(id.id, "spiffe://"), "/")
	inDomains := func(list []string) bool {
		return slices.ContainsFunc(list, func(v string) bool { return globMatches(v, td) })
	}
	return (len(s.Principals) == 0 || in(s.Principals)) && !in(s.NotPrincipals) &&
		(len(s.ServiceAccounts) == 0 || in(s.ServiceAccounts)) && !in(s.NotServiceAccounts) &&
		(len(s.Namespaces) == 0 || inNamespaces(s.Namespaces)) && !inNamespaces(s.NotNamespaces) &&
		(len(s.TrustDomains) == 0 || inDomains(s.TrustDomains)) && !inDomains(s.NotTrustDomains)
}

func stringMatches(m model.Match, v string) bool {
	switch m.Kind {
	case model.Exact:
		return v == m.Value
	case model.Prefix:
		return strings.HasPrefix(v, m.Value)
	case model.Suffix:
		return strings.HasSuffix(v, m.Value)
	case model.Present:
		return v != ""
	}
	return false
}

// globMatches compares with any number of "*", each standing for any run of characters.
func globMatches(pattern, v string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == v
	}
	rest, ok := strings.CutPrefix(v, parts[0])
	if !ok {
		return false
	}
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(rest, p)
		if i < 0 {
			return false
		}
		rest = rest[i+len(p):]
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}
