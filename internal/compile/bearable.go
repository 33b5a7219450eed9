package compile

import (
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
)

// maxPolicyValues limits the values that the policies of one workload compare. Its Envoy holds them once per port.
const maxPolicyValues = 8_192

// bearable returns the policies of an instance that its proxy gets: all, or the oldest if there are too many. Omitting
// an ALLOW policy allows less. If a DENY policy is omitted, refusal denies everything instead.
func (u *unit) bearable(i *instance, all []selectedPolicy) (standing []selectedPolicy, refusal *model.Policy) {
	total := 0
	for _, sp := range all {
		total += sp.values
	}
	if total <= maxPolicyValues {
		return all, nil
	}
	byAge := slices.Clone(all)
	slices.SortFunc(byAge, func(a, b selectedPolicy) int { return a.compare(b.age) })
	without := map[*model.Policy]bool{}
	total = 0
	for _, sp := range byAge {
		if total += sp.values; total <= maxPolicyValues {
			continue
		}
		total -= sp.values
		without[sp.policy] = true
		if sp.policy.Action == model.Deny && refusal == nil {
			refusal = &model.Policy{
				Name: model.ClosedPrefix + sp.policy.Name, Ref: sp.policy.Ref, Action: model.Deny,
				Rules: []model.Rule{{}},
			}
		}
	}
	u.reportUnbearable(i, len(without), refusal)
	return slices.DeleteFunc(slices.Clone(all), func(sp selectedPolicy) bool { return without[sp.policy] }), refusal
}

// reportUnbearable reports that once per namespace, for one workload.
func (u *unit) reportUnbearable(i *instance, n int, refusal *model.Policy) {
	if i.workload == nil || u.authz.crowded {
		return
	}
	u.authz.crowded = true
	f := finding.New("ISM0216", kind.Workload(i.namespace, i.name), "",
		fmt.Sprintf("its policies compare with more than %d values; the %d youngest that do "+
			"not fit are not in force", maxPolicyValues, n))
	if refusal != nil {
		f.Message += ", and since a DENY is among them nobody may call it: " + string(refusal.Ref)
	}
	u.findings = append(u.findings, f)
}

// valuesOf counts the values that Envoy compares for a policy: conditions are repeated for each source or operation.
func valuesOf(p *model.Policy) int {
	n := 1
	for _, r := range p.Rules {
		n++
		for _, s := range r.From {
			n += valuesOfSource(s)
		}
		for _, o := range r.To {
			n += 1 + len(o.Hosts) + len(o.NotHosts) + len(o.Ports) + len(o.NotPorts) + len(o.Methods) +
				len(o.NotMethods) +
				len(o.Paths) + len(o.NotPaths)
		}
		for _, w := range r.When {
			if fromCaller(w) {
				n += valuesOfCondition(w) * max(1, len(r.From))
			} else {
				n += valuesOfCondition(w) * max(1, len(r.To))
			}
		}
	}
	return n
}

// fromCaller reports whether the condition tests the caller. Such conditions are repeated per source, others per
// operation.
func fromCaller(w model.Condition) bool {
	return strings.HasPrefix(w.Key, "source.") || w.Key == "remote.ip"
}

func valuesOfCondition(w model.Condition) int {
	n := 1 + len(w.Matches) + len(w.NotMatches) + len(w.Prefixes) + len(w.NotPrefixes) + len(w.Ports) + len(w.NotPorts)
	for _, s := range slices.Concat(w.Sources, w.NotSources) {
		n += valuesOfSource(s)
	}
	return n
}

func valuesOfSource(s model.Source) int {
	return 1 + len(s.Principals) + len(s.NotPrincipals) + len(s.Namespaces) + len(s.NotNamespaces) +
		len(s.TrustDomains) + len(s.NotTrustDomains) + len(s.IPBlocks) + len(s.NotIPBlocks) +
		len(s.RemoteIPBlocks) + len(s.NotRemoteIPBlocks) + len(s.ServiceAccounts) + len(s.NotServiceAccounts)
}
