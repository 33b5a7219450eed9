package istioyaml

import (
	"fmt"
	"strings"

	securityapi "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
)

// checkAuthorizationPolicy refuses what Istio calls invalid and what Isthmus cannot enforce yet. A restriction that would be
// left out silently would let through more than its author wrote.
func checkAuthorizationPolicy(r *report, o *security.AuthorizationPolicy, doc map[string]any) {
	spec := &o.Spec
	r.selector("spec.selector", spec.GetSelector())
	if spec.TargetRef != nil || len(spec.TargetRefs) > 0 {
		field := "spec.targetRefs"
		if spec.TargetRef != nil {
			field = "spec.targetRef"
		}
		r.refuse(CodeUnsupported, field, "policies are attached to workloads by selector only", "use spec.selector.matchLabels")
	}
	if _, ok := o.Annotations["istio.io/dry-run"]; ok {
		r.refuse(CodeUnsupported, childPath("metadata.annotations", "istio.io/dry-run"), "a dry run is not supported yet", "remove the annotation to enforce the policy, or the policy")
	}
	r.action(spec)
	rules, _ := doc["spec"].(map[string]any)
	r.writtenEmpty("spec.rules", rules["rules"])
	for i, rule := range spec.Rules {
		p := policyRule{report: r, deny: spec.Action == securityapi.AuthorizationPolicy_DENY}
		p.check(fmt.Sprintf("spec.rules[%d]", i), rule)
	}
}

func (r *report) action(spec *securityapi.AuthorizationPolicy) {
	switch spec.Action {
	case securityapi.AuthorizationPolicy_AUDIT, securityapi.AuthorizationPolicy_CUSTOM:
		r.refuse(CodeUnsupported, "spec.action", fmt.Sprintf("action %s is not supported yet", spec.Action), "use ALLOW or DENY")
	case securityapi.AuthorizationPolicy_DENY:
		if len(spec.Rules) == 0 {
			r.refuse(CodeInvalid, "spec.rules", "a DENY policy without rules denies nothing", "write rules; to deny everything write rules: [{}]")
		}
	}
	if spec.GetProvider() != nil && spec.Action != securityapi.AuthorizationPolicy_CUSTOM {
		r.refuse(CodeInvalid, "spec.provider", "a provider belongs to action CUSTOM only", "remove spec.provider")
	}
}

// writtenEmpty refuses empty lists inside rules: Istio would take them for not written, and so for "anything".
func (r *report) writtenEmpty(path string, v any) {
	rules, _ := v.([]any)
	for i, rule := range rules {
		r.emptyLists(fmt.Sprintf("%s[%d]", path, i), rule)
	}
}

func (r *report) emptyLists(path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range sortedKeys(v) {
			r.emptyLists(childPath(path, k), v[k])
		}
	case []any:
		if len(v) == 0 {
			r.refuse(CodeInvalid, path, "an empty list restricts nothing", "write what it should hold, or remove it to mean anything")
		}
		for i, item := range v {
			r.emptyLists(fmt.Sprintf("%s[%d]", path, i), item)
		}
	}
}

// policyRule checks one rule.
type policyRule struct {
	*report
	deny bool
}

func (p policyRule) check(path string, rule *securityapi.Rule) {
	for i, from := range rule.GetFrom() {
		at := fmt.Sprintf("%s.from[%d]", path, i)
		if from.GetSource() == nil {
			p.refuse(CodeRequired, at, "source is missing", "write source: with at least one field")
			continue
		}
		p.source(at+".source", from.Source)
	}
	for i, to := range rule.GetTo() {
		at := fmt.Sprintf("%s.to[%d]", path, i)
		if to.GetOperation() == nil {
			p.refuse(CodeRequired, at, "operation is missing", "write operation: with at least one field")
			continue
		}
		p.operation(at+".operation", to.Operation)
	}
	for i, c := range rule.GetWhen() {
		p.condition(fmt.Sprintf("%s.when[%d]", path, i), c)
	}
}

// values is one field of a source or operation.
type values struct {
	name  string
	list  []string
	check func(p policyRule, path, value string)
}

// fields checks the fields of a source or operation, of which one at least must be written.
func (p policyRule) fields(path string, fields []values) {
	written := false
	for _, f := range fields {
		for i, v := range f.list {
			written = true
			at := fmt.Sprintf("%s.%s[%d]", path, f.name, i)
			if v == "" {
				p.refuse(CodeInvalid, at, "an empty value matches nothing that exists", "write a value, or remove the item")
				continue
			}
			f.check(p, at, v)
		}
	}
	if !written {
		p.refuse(CodeInvalid, path, "nothing is written inside", "write at least one field, or remove it to mean anything")
	}
}

func (p policyRule) source(path string, s *securityapi.Source) {
	p.fields(path, []values{
		{"principals", s.Principals, policyRule.pattern},
		{"notPrincipals", s.NotPrincipals, policyRule.pattern},
		{"requestPrincipals", s.RequestPrincipals, policyRule.tokens},
		{"notRequestPrincipals", s.NotRequestPrincipals, policyRule.tokens},
		{"namespaces", s.Namespaces, policyRule.anything},
		{"notNamespaces", s.NotNamespaces, policyRule.anything},
		{"serviceAccounts", s.ServiceAccounts, policyRule.serviceAccount},
		{"notServiceAccounts", s.NotServiceAccounts, policyRule.serviceAccount},
		{"ipBlocks", s.IpBlocks, policyRule.ipBlock},
		{"notIpBlocks", s.NotIpBlocks, policyRule.ipBlock},
		{"remoteIpBlocks", s.RemoteIpBlocks, policyRule.ipBlock},
		{"notRemoteIpBlocks", s.NotRemoteIpBlocks, policyRule.ipBlock},
		{"trustDomains", s.TrustDomains, policyRule.trustDomain},
		{"notTrustDomains", s.NotTrustDomains, policyRule.trustDomain},
	})
	accounts := len(s.ServiceAccounts)+len(s.NotServiceAccounts) > 0
	if accounts && len(s.Principals)+len(s.NotPrincipals)+len(s.Namespaces)+len(s.NotNamespaces) > 0 {
		p.refuse(CodeInvalid, path, "serviceAccounts cannot stand beside principals or namespaces", "write them in separate items of from, or use one of them")
	}
	if len(s.ServiceAccounts) > 16 || len(s.NotServiceAccounts) > 16 {
		p.refuse(CodeInvalid, path, "more than 16 serviceAccounts in one source", "split them over several items of from")
	}
}

func (p policyRule) operation(path string, o *securityapi.Operation) {
	p.fields(path, []values{
		{"hosts", o.Hosts, policyRule.pattern},
		{"notHosts", o.NotHosts, policyRule.pattern},
		{"ports", o.Ports, policyRule.port},
		{"notPorts", o.NotPorts, policyRule.port},
		{"methods", o.Methods, policyRule.pattern},
		{"notMethods", o.NotMethods, policyRule.pattern},
		{"paths", o.Paths, policyRule.path},
		{"notPaths", o.NotPaths, policyRule.path},
	})
}

func (p policyRule) anything(string, string) {}

// pattern is "*", "x*", "*x" or exact. A "*" elsewhere is a literal star, which nobody means.
func (p policyRule) pattern(path, v string) {
	if v == "*" || !strings.Contains(strings.TrimSuffix(v, "*"), "*") {
		return
	}
	if inner := strings.TrimPrefix(v, "*"); !strings.Contains(inner, "*") {
		return
	}
	message := fmt.Sprintf("in %q only one * counts, at the beginning or the end; the other is an ordinary character", clip(v))
	remedy := "use one * at the beginning or the end, or several values"
	if p.deny {
		p.refuse(CodeInvalid, path, message+", so the policy would deny less than it seems to", remedy)
		return
	}
	p.warn(CodeDoubtful, path, message, remedy)
}

func (p policyRule) tokens(path, _ string) {
	p.refuse(CodeUnsupported, path, "identities of tokens (RequestAuthentication) are not supported yet", "remove the field, or match the caller by principals")
}

func (p policyRule) serviceAccount(path, v string) {
	ns, name, two := strings.Cut(v, "/")
	if !two {
		ns, name = "x", v
	}
	if !isLabel(ns) || !isSubdomain(name) {
		p.refuse(CodeInvalid, path, fmt.Sprintf("%q is not a service account", clip(v)), "write <service account> or <namespace>/<service account>, without *")
	}
}

func (p policyRule) trustDomain(path, v string) {
	if strings.Contains(v, "/") || strings.Count(v, "*") > 1 {
		p.refuse(CodeInvalid, path, fmt.Sprintf("%q is not a trust domain", clip(v)), "write a trust domain without spiffe:// and slashes, with one * at most")
	}
}

func (p policyRule) ipBlock(path, v string) { p.ipOrRange(path, v) }

func (p policyRule) port(path, v string) { p.portText(path, v) }

// path is a pattern, or a template with {*} for one segment and {**} at the end for any.
func (p policyRule) path(path, v string) {
	if !strings.ContainsAny(v, "{}") {
		p.pattern(path, v)
		return
	}
	if fault := templateFault(v); fault != "" {
		p.refuse(CodeInvalid, path, fmt.Sprintf("%q is not a path template: %s", clip(v), fault), "use {*} for one whole segment, {**} for the last ones, and no other braces or *")
	}
}

func templateFault(v string) string {
	plain := strings.NewReplacer("{**}", "", "{*}", "").Replace(v)
	switch {
	case strings.ContainsAny(plain, "{}"):
		return "braces hold only * or **"
	case strings.Contains(plain, "*"):
		return "a bare * cannot stand beside a template"
	}
	segments := strings.Split(v, "/")
	for i, s := range segments {
		if strings.Contains(s, "{") && s != "{*}" && s != "{**}" {
			return "an operator is a whole segment"
		}
		if s == "{**}" && strings.Contains(strings.Join(segments[i+1:], "/"), "{") {
			return "{**} must be the last operator"
		}
	}
	return ""
}
