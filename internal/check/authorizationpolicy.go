package check

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	securityapi "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"isthmus.dev/isthmus/internal/finding"
)

// authorizationPolicy refuses what Istio calls invalid and what Isthmus cannot enforce. Silently ignoring a restriction
// would allow more than its author wrote.
func authorizationPolicy(r *report, o *security.AuthorizationPolicy) {
	spec := &o.Spec
	r.selector("spec.selector", spec.GetSelector())
	if spec.TargetRef != nil || len(spec.TargetRefs) > 0 {
		field := "spec.targetRefs"
		if spec.TargetRef != nil {
			field = "spec.targetRef"
		}
		r.find(finding.Unsupported, field,
			"policies are attached to workloads by selector only",
			"use spec.selector.matchLabels")
	}
	if _, ok := o.Annotations["istio.io/dry-run"]; ok {
		r.find(finding.Unsupported, finding.Child("metadata.annotations", "istio.io/dry-run"),
			"a dry run is not supported yet", "remove the annotation to enforce the policy, or the policy")
	}
	r.action(spec)
	for i, rule := range spec.Rules {
		p := policyRule{report: r, deny: spec.Action == securityapi.AuthorizationPolicy_DENY}
		p.check(fmt.Sprintf("spec.rules[%d]", i), rule)
	}
}

func (r *report) action(spec *securityapi.AuthorizationPolicy) {
	switch spec.Action {
	case securityapi.AuthorizationPolicy_ALLOW:
	case securityapi.AuthorizationPolicy_DENY:
		if len(spec.Rules) == 0 {
			r.find(finding.Invalid, "spec.rules",
				"a DENY policy without rules denies nothing",
				"write rules; to deny everything write rules: [{}]")
		}
	default:
		r.find(finding.Unsupported, "spec.action",
			fmt.Sprintf("action %s is not supported yet", spec.Action),
			"use ALLOW or DENY")
	}
	if spec.GetProvider() != nil && spec.Action != securityapi.AuthorizationPolicy_CUSTOM {
		r.find(finding.Invalid, "spec.provider", "a provider belongs to action CUSTOM only", "remove spec.provider")
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
			p.find(finding.Required, at, "source is missing", "write source: with at least one field")
			continue
		}
		p.source(at+".source", from.Source)
	}
	for i, to := range rule.GetTo() {
		at := fmt.Sprintf("%s.to[%d]", path, i)
		if to.GetOperation() == nil {
			p.find(finding.Required, at, "operation is missing", "write operation: with at least one field")
			continue
		}
		p.operation(at+".operation", to.Operation)
	}
	for i, c := range rule.GetWhen() {
		p.condition(fmt.Sprintf("%s.when[%d]", path, i), c)
	}
}

// values is a field of a source or operation.
type values struct {
	name  string
	list  []string
	check func(p policyRule, path, value string)
}

// fields checks the fields of a source or operation. At least one must be set.
func (p policyRule) fields(path string, fields []values) {
	written := false
	for _, f := range fields {
		written = written || len(f.list) > 0
		p.each(path+"."+f.name, f.list, f.check)
	}
	if !written {
		p.find(finding.Invalid, path,
			"nothing is written inside", "write at least one field, or remove it to mean anything")
	}
}

// each checks the values of a list.
func (p policyRule) each(path string, list []string, check func(p policyRule, path, value string)) {
	for i, v := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		if v == "" {
			p.find(finding.Invalid, at,
				"an empty value matches nothing that exists",
				"write a value, or remove the item")
			continue
		}
		check(p, at, v)
	}
}

func (p policyRule) source(path string, s *securityapi.Source) {
	p.fields(path, []values{
		{"principals", s.Principals, policyRule.principal},
		{"notPrincipals", s.NotPrincipals, policyRule.principal},
		{"requestPrincipals", s.RequestPrincipals, policyRule.tokens},
		{"notRequestPrincipals", s.NotRequestPrincipals, policyRule.tokens},
		{"namespaces", s.Namespaces, policyRule.namespace},
		{"notNamespaces", s.NotNamespaces, policyRule.namespace},
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
		p.find(finding.Invalid, path,
			"serviceAccounts cannot stand beside principals or namespaces",
			"write them in separate items of from, or use one of them")
	}
	if len(s.ServiceAccounts) > 16 || len(s.NotServiceAccounts) > 16 {
		p.find(finding.Invalid, path,
			"more than 16 serviceAccounts in one source", "split them over several items of from")
	}
}

func (p policyRule) operation(path string, o *securityapi.Operation) {
	p.fields(path, []values{
		{"hosts", o.Hosts, policyRule.host},
		{"notHosts", o.NotHosts, policyRule.host},
		{"ports", o.Ports, policyRule.port},
		{"notPorts", o.NotPorts, policyRule.port},
		{"methods", o.Methods, policyRule.method},
		{"notMethods", o.NotMethods, policyRule.method},
		{"paths", o.Paths, policyRule.path},
		{"notPaths", o.NotPaths, policyRule.path},
	})
}

// Maximum lengths of values, taken from what they are compared with. A longer value could never match, and a proxy that
// compiles it to a regular expression may reject its whole configuration.
const (
	maxPrincipal = 2048 // SPIFFE ID §2.3
	maxHost      = 253 + len(":65535")
	maxMethod    = 64
	maxText      = 8192 // a path or a header value; Envoy accepts 60 KiB of headers in total
	maxHeader    = 256
)

// fits refuses a value that can never match because of its length or a character.
func (p policyRule) fits(path, v string, longest int, allowed func(rune) bool, remedy string) bool {
	if len(v) > longest {
		p.find(finding.Invalid, path,
			fmt.Sprintf("%q has %d bytes, more than %d, which nothing has that it is compared with", finding.Clip(v),
				len(v), longest),
			"write a shorter value, or a prefix of it with one * at the end")
		return false
	}
	if i := strings.IndexFunc(v, func(r rune) bool { return !allowed(r) }); i >= 0 {
		r, _ := utf8.DecodeRuneInString(v[i:])
		p.find(finding.Invalid, path,
			fmt.Sprintf("%q holds the character %q, which nothing holds that it is compared with", finding.Clip(v),
				r), remedy)
		return false
	}
	return true
}

// visible matches printable ASCII except blanks.
func visible(r rune) bool { return r > ' ' && r < 0x7f }

func printable(r rune) bool { return r >= ' ' && r != 0x7f && !unicode.Is(unicode.Cc, r) }

// inName matches the characters of DNS labels, trust domains and patterns of them.
func inName(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune("-._*", r)
}

// inToken matches the characters of a method or header name (RFC 9110 §5.6.2), which include the "*" of a pattern.
func inToken(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
		strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

func (p policyRule) principal(path, v string) {
	if p.fits(path, v, maxPrincipal, visible,
		"write <trust domain>/ns/<namespace>/sa/<service account>, with one * at the beginning or the end") {
		p.pattern(path, v)
	}
}

func (p policyRule) namespace(path, v string) {
	p.fits(path, v, 2*63, inName, "write a namespace; * stands for any characters")
}

func (p policyRule) host(path, v string) {
	if p.fits(path, v, maxHost, visible,
		"write a host name as requests carry it, for example xn--caf-dma.example for café.example") {
		p.pattern(path, v)
	}
}

func (p policyRule) method(path, v string) {
	if p.fits(path, v, maxMethod, inToken, "write a method such as GET") {
		p.pattern(path, v)
	}
}

func (p policyRule) headerValue(path, v string) {
	p.fits(path, v, maxText, func(r rune) bool { return printable(r) || r == '\t' },
		"write the value as requests carry it, without control characters")
}

func (p policyRule) sni(path, v string) {
	if p.fits(path, v, maxHost, visible, "write a host name as clients say it in the handshake, in ASCII") {
		p.pattern(path, v)
	}
}

// pattern is "*", "x*", "*x" or exact. A "*" elsewhere is a literal star, which nobody means.
func (p policyRule) pattern(path, v string) {
	if v == "*" || !strings.Contains(strings.TrimSuffix(v, "*"), "*") {
		return
	}
	if inner := strings.TrimPrefix(v, "*"); !strings.Contains(inner, "*") {
		return
	}
	message := fmt.Sprintf("in %q only one * counts, at the beginning or the end; the other is an ordinary character",
		finding.Clip(v))
	remedy := "use one * at the beginning or the end, or several values"
	if p.deny {
		p.find(finding.Invalid, path, message+", so the policy would deny less than it seems to", remedy)
		return
	}
	p.find(finding.Doubtful, path, message, remedy)
}

func (p policyRule) tokens(path, _ string) {
	p.find(finding.Unsupported, path,
		"identities of tokens (RequestAuthentication) are not supported yet",
		"remove the field, or match the caller by principals")
}

func (p policyRule) serviceAccount(path, v string) {
	ns, name, two := strings.Cut(v, "/")
	if !two {
		ns, name = "x", v
	}
	if !isLabel(ns) || !isSubdomain(name) {
		p.find(finding.Invalid, path,
			fmt.Sprintf("%q is not a service account", finding.Clip(v)),
			"write <service account> or <namespace>/<service account>, without *")
	}
}

func (p policyRule) trustDomain(path, v string) {
	if len(v) > 255 || strings.ContainsFunc(v, func(r rune) bool { return !inName(r) }) || strings.Count(v, "*") > 1 {
		p.find(finding.Invalid, path,
			fmt.Sprintf("%q is not a trust domain", finding.Clip(v)),
			"write a trust domain without spiffe:// and slashes, with one * at most")
	}
}

func (p policyRule) ipBlock(path, v string) { p.ipOrRange(path, v) }

func (p policyRule) port(path, v string) { p.portText(path, v) }

// path is a pattern, or a template with {*} for one segment and {**} at the end for any.
func (p policyRule) path(path, v string) {
	if !p.fits(path, v, maxText, printable, "write the path as requests carry it, without control characters") {
		return
	}
	if !strings.ContainsAny(v, "{}") {
		p.pattern(path, v)
		return
	}
	if fault := templateFault(v); fault != "" {
		p.find(finding.Invalid, path,
			fmt.Sprintf("%q is not a path template: %s", finding.Clip(v), fault),
			"use {*} for one whole segment, {**} for the last ones, and no other braces or *")
	}
}

// templateFault follows Envoy's grammar of path templates to the letter: one that it cannot read ends the whole Envoy.
func templateFault(v string) string {
	const maxTemplate = 256
	written := strings.NewReplacer("{**}", "**", "{*}", "*").Replace(v)
	plain := strings.NewReplacer("{**}", "", "{*}", "").Replace(v)
	switch {
	case strings.ContainsAny(plain, "{}"):
		return "braces hold only * or **"
	case strings.Contains(plain, "*"):
		return "a bare * cannot stand beside a template"
	case !strings.HasPrefix(v, "/"):
		return "it does not begin with /"
	case strings.Contains(written, "//"):
		return "a segment is empty"
	case len(written) > maxTemplate:
		return fmt.Sprintf("it has %d characters, more than %d", len(written), maxTemplate)
	}
	if i := strings.IndexFunc(plain, func(r rune) bool { return !inTemplate(r) }); i >= 0 {
		r, _ := utf8.DecodeRuneInString(plain[i:])
		return fmt.Sprintf("the character %q cannot stand in one; in requests it is written %%%X", r, string(r))
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

// inTemplate are the characters that Envoy takes for themselves in a template.
func inTemplate(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
		strings.ContainsRune("/-._~%!$&'()+,;:@=", r)
}
