package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/spiffe"
)

// callers inverts the policies of those who serve each port into the identities of this mesh that may call it.
// It over-approximates: methods, paths, addresses and the like narrow a call at the server, not at the caller.
func callers(c *compiler) { c.callersAmong(c.knownIdentities()) }

func (c *compiler) callersAmong(ids []caller) {
	for _, svc := range c.mesh.Services {
		visible := visibleTo(ids, svc)
		var all []model.Caller
		if svc.External {
			for _, id := range visible {
				all = append(all, model.Caller{ID: id.id, By: svc.Refs})
			}
		}
		for _, port := range svc.Ports {
			if port.Callers = slices.Clip(all); !svc.External {
				port.Callers = c.callersOf(port, visible)
			}
		}
	}
}

// caller is an identity together with its parts, taken apart once.
type caller struct {
	id                        string
	namespace, serviceAccount string
}

func (c *compiler) knownIdentities() []caller {
	seen := map[string]bool{}
	for _, w := range c.mesh.Workloads {
		seen[w.Identity.String()] = true
	}
	var out []caller
	for _, s := range sortedKeys(seen) {
		id, err := spiffe.Parse(s)
		if err != nil {
			continue
		}
		ns, sa, _ := spiffe.WorkloadParts(id)
		out = append(out, caller{id: s, namespace: ns, serviceAccount: sa})
	}
	return out
}

// visibleTo: exportTo says who may see a service. What is outside the mesh has no policies that could say more.
func visibleTo(ids []caller, svc *model.Service) []caller {
	if svc.ExportTo == nil {
		return ids
	}
	var out []caller
	for _, id := range ids {
		if slices.Contains(svc.ExportTo, id.namespace) {
			out = append(out, id)
		}
	}
	return out
}

func (c *compiler) callersOf(port *model.Port, ids []caller) []model.Caller {
	by := map[string][]model.Ref{}
	seen := map[string]bool{}
	for _, i := range c.backing[port] {
		key := fmt.Sprintf("%s\x00%d", c.policyKey(i.instance), i.number)
		if seen[key] {
			continue // the same policies allow the same callers
		}
		seen[key] = true
		ps := atPort(c.policiesOf(i.instance), i.number)
		if !port.Protocol.IsHTTP() {
			ps.Allow = withoutHTTP(ps.Allow)
		}
		for _, id := range candidates(ps, ids) {
			if refs, ok := mayCall(ps, id); ok {
				by[id.id] = append(by[id.id], refs...)
			}
		}
	}
	out := make([]model.Caller, 0, len(by))
	for _, id := range sortedKeys(by) {
		refs := by[id]
		slices.Sort(refs)
		out = append(out, model.Caller{ID: id, By: slices.Compact(refs)})
	}
	return out
}

// withoutHTTP leaves out the ALLOW rules that a raw connection can never meet.
func withoutHTTP(list []*model.Policy) []*model.Policy {
	out := make([]*model.Policy, 0, len(list))
	for _, p := range list {
		if slices.ContainsFunc(p.Rules, model.Rule.NeedsHTTP) {
			q := *p
			q.Rules = slices.DeleteFunc(slices.Clone(p.Rules), model.Rule.NeedsHTTP)
			p = &q
		}
		out = append(out, p)
	}
	return out
}

// candidates narrows ids to those that exact principals name, when every rule names its callers so.
func candidates(ps model.Policies, ids []caller) []caller {
	if len(ps.Allow) == 0 {
		return ids
	}
	var out []caller
	for _, p := range ps.Allow {
		for _, r := range p.Rules {
			exact, ok := exactCallers(r, ids)
			if !ok {
				return ids
			}
			out = append(out, exact...)
		}
	}
	slices.SortFunc(out, func(a, b caller) int { return cmp.Compare(a.id, b.id) })
	return slices.CompactFunc(out, func(a, b caller) bool { return a.id == b.id })
}

func exactCallers(r model.Rule, ids []caller) ([]caller, bool) {
	if len(r.From) == 0 {
		return nil, false
	}
	var out []caller
	for _, s := range r.From {
		if len(s.Principals) == 0 {
			return nil, false
		}
		for _, p := range s.Principals {
			if p.Match.Kind != model.Exact {
				return nil, false
			}
			if n, ok := slices.BinarySearchFunc(ids, p.Match.Value, func(c caller, v string) int { return cmp.Compare(c.id, v) }); ok && p.Peer == "" {
				out = append(out, ids[n])
			}
		}
	}
	return out, true
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
