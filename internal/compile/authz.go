package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	istiosec "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/pathmatch"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// policyIndex finds the AuthorizationPolicies that select an instance.
type policyIndex struct {
	own     *translated               // of the namespace
	cache   map[string]model.Policies // by policyKey: many instances share them
	crowded bool                      // the finding about too many policies was reported
}

type selectedPolicy struct {
	age
	policy *model.Policy
	values int // number of values that it compares
}

// translated is the result of translating the AuthorizationPolicies of a namespace.
type translated struct {
	report   // origins are set only during the translation
	mesh     *meshInputs
	policies selectors[selectedPolicy]
	byName   map[string]*model.Policy
	shut     []snapshot.Closed // policies that cannot be enforced
}

// policies translates the AuthorizationPolicies of the namespace, unless they are unchanged.
func (u *unit) policies() {
	t := u.before.policies
	if t == nil || t.mesh != u.mesh || !snapshot.Same[*security.AuthorizationPolicy](u.before.objects, u.objects) {
		t = translate(u.mesh, u.objects, t)
	}
	u.part.policies, u.authz.own = t, t
	u.findings = append(u.findings, t.findings...)
	for _, o := range t.shut {
		u.shut(o)
	}
}

// translate keeps the pointers of policies that equal those in before, which may be nil.
func translate(mesh *meshInputs, in objects, before *translated) *translated {
	if before == nil {
		before = &translated{}
	}
	t := &translated{report: report{origins: in}, mesh: mesh, byName: map[string]*model.Policy{}}
	for o := range snapshot.Each[*security.AuthorizationPolicy](in) {
		ap := o.Value.(*security.AuthorizationPolicy)
		t.guarded(o.Key, func(c snapshot.Closed) { t.shut = append(t.shut, c) }, func() {
			t.istioRoot(mesh, o.Key)
			if p := t.policy(o, ap); p != nil {
				p = keep(before.byName[ap.Name], p)
				t.byName[ap.Name] = p
				t.policies.add(ap.Spec.GetSelector().GetMatchLabels(), selectedPolicy{ageOf(o), p, valuesOf(p)})
			}
		})
	}
	t.origins = nil
	return t
}

// admission is a key that is equal for instances at a port to which the same policies apply.
type admission struct {
	port      uint16
	http      bool
	policyKey string
}

// policyKey returns a key that is equal for instances selected by the same policies.
func (u *unit) policyKey(i *instance) string {
	if i.policyKey != "" {
		return i.policyKey
	}
	key := "="
	if u.isClosed(i.name) {
		key = i.name // the instance itself is closed
	}
	for _, l := range slices.Sorted(maps.Keys(i.labels)) {
		key += "\x00" + l + "=" + i.labels[l]
	}
	i.policyKey = key
	return key
}

// policiesOf returns the policies of the root namespace and of this one that select an instance.
func (u *unit) policiesOf(i *instance) model.Policies {
	key := u.policyKey(i)
	if ps, ok := u.authz.cache[key]; ok {
		return ps
	}
	ps := model.Policies{DefaultAllow: u.mesh.allow, Deny: u.closedBy(i)}
	standing, refusal := u.bearable(i, append(u.root.policies.of(i), u.authz.own.policies.of(i)...))
	for _, sp := range standing {
		if sp.policy.Action == model.Allow {
			ps.Allow = append(ps.Allow, sp.policy)
		} else {
			ps.Deny = append(ps.Deny, sp.policy)
		}
	}
	if refusal != nil {
		ps.Deny = append(ps.Deny, refusal)
	}
	u.authz.cache[key] = ps
	return ps
}

// policiesAt returns the policies of an instance at one port. Equal results are the same pointer.
func (u *unit) policiesAt(i *instance, port uint16, http bool) *model.Policies {
	key := admission{port, http, u.policyKey(i)}
	if ps := u.part.admitted[key]; ps != nil {
		return ps
	}
	ps := authz.OnPort(u.policiesOf(i), port, http)
	u.part.admitted[key] = keep(u.before.admitted[key], &ps)
	return u.part.admitted[key]
}

// policy translates an AuthorizationPolicy. If it contains something that cannot be enforced (which its kind's check
// refuses), policy returns nil, and what it selects is closed.
func (to *translated) policy(o *snapshot.Object, ap *security.AuthorizationPolicy) *model.Policy {
	t := &policyTranslator{report: &to.report, mesh: to.mesh, key: o.Key, namespace: ap.Namespace}
	p := &model.Policy{Name: ap.Namespace + "/" + ap.Name, Ref: at(o.Key.String(), o.Origin)}
	selector := ap.Spec.GetSelector().GetMatchLabels()
	switch ap.Spec.Action {
	case istiosec.AuthorizationPolicy_ALLOW:
		p.Action = model.Allow
	case istiosec.AuthorizationPolicy_DENY:
		p.Action = model.Deny
	default:
		t.field = "spec.action"
		t.fail(fmt.Sprintf("action %s cannot be enforced", ap.Spec.Action))
	}
	if len(ap.Spec.TargetRefs) > 0 || ap.Spec.TargetRef != nil {
		t.field = "spec.targetRefs"
		t.fail("policies are attached to workloads by selector only")
		selector = nil // the selection is unknown
	}
	t.refusing = p.Action == model.Deny
	for n, r := range ap.Spec.Rules {
		t.field = fmt.Sprintf("spec.rules[%d]", n)
		rule := t.rule(r)
		rule.Number = n
		p.Rules = append(p.Rules, rule)
	}
	if t.failed {
		to.shut = append(to.shut, snapshot.Closed{Key: o.Key, Origin: o.Origin, Selector: selector})
		return nil
	}
	return p
}

// policyTranslator translates one policy's rules into the model.
type policyTranslator struct {
	*report
	mesh      *meshInputs
	key       snapshot.Key
	namespace string
	field     string
	refusing  bool // for DENY policies
	failed    bool
}

// fail records that something in the policy cannot be enforced.
func (t *policyTranslator) fail(message string) {
	t.failed = true
	t.find(t.key, "ISM0042", t.field, message+"; what the policy selects is closed")
}

func (t *policyTranslator) rule(r *istiosec.Rule) model.Rule {
	var out model.Rule
	for n, f := range r.From {
		t.refuseRequestPrincipals(n, f.Source)
		out.From = append(out.From, t.source(f.Source))
	}
	for n, o := range r.To {
		out.To = append(out.To, t.operation(fmt.Sprintf("%s.to[%d].operation", t.field, n), o.Operation))
	}
	for n, w := range r.When {
		out.When = append(out.When, t.condition(fmt.Sprintf(".when[%d]", n), w))
	}
	return out
}

func (t *policyTranslator) refuseRequestPrincipals(n int, s *istiosec.Source) {
	if len(s.GetRequestPrincipals())+len(s.GetNotRequestPrincipals()) > 0 {
		t.fail("request principals need RequestAuthentication, which cannot be enforced")
	}
}

func (t *policyTranslator) source(s *istiosec.Source) model.Source {
	return model.Source{
		Principals: t.principals(s.Principals), NotPrincipals: t.principals(s.NotPrincipals),
		Namespaces: s.Namespaces, NotNamespaces: s.NotNamespaces,
		TrustDomains: t.domains(s.TrustDomains), NotTrustDomains: t.domains(s.NotTrustDomains),
		IPBlocks: t.prefixes(s.IpBlocks), NotIPBlocks: t.prefixes(s.NotIpBlocks),
		RemoteIPBlocks: t.prefixes(s.RemoteIpBlocks), NotRemoteIPBlocks: t.prefixes(s.NotRemoteIpBlocks),
		ServiceAccounts:    t.serviceAccounts(s.ServiceAccounts),
		NotServiceAccounts: t.serviceAccounts(s.NotServiceAccounts),
	}
}

// principals parses "td/ns/x/sa/y" with Istio's wildcards. cluster.local and the trust domain aliases mean this mesh
// (Istio: trust domain migration).
func (t *policyTranslator) principals(list []string) []model.Principal {
	var out []model.Principal
	for _, v := range list {
		m := match(v)
		p := model.Principal{Match: m}
		if m.Kind == model.Exact || m.Kind == model.Prefix {
			td, rest, whole := strings.Cut(m.Value, "/")
			if whole && t.mesh.isOwnDomain(td) {
				td = t.mesh.trustDomain.Name()
			}
			if whole {
				p.Peer = t.mesh.peerOf(td)
				m.Value = td + "/" + rest
			}
			p.Match.Value = "spiffe://" + m.Value
		}
		out = append(out, p)
	}
	return out
}

func (t *policyTranslator) serviceAccounts(list []string) []model.Principal {
	var out []model.Principal
	for _, v := range list {
		ns, sa, qualified := strings.Cut(v, "/")
		if !qualified {
			ns, sa = t.namespace, v
		}
		id, err := spiffe.Workload(t.mesh.trustDomain, ns, sa)
		if err != nil {
			t.fail(fmt.Sprintf("service account %q names no identity: %v", v, err))
			continue
		}
		out = append(out, model.Principal{Match: model.Match{Kind: model.Exact, Value: id.String()}})
	}
	return out
}

func (t *policyTranslator) domains(list []string) []string {
	var out []string
	for _, td := range list {
		if t.mesh.isOwnDomain(td) {
			td = t.mesh.trustDomain.Name()
		}
		out = append(out, td)
	}
	return out
}

func (t *policyTranslator) prefixes(list []string) []netip.Prefix {
	var out []netip.Prefix
	for _, v := range list {
		p, ok := parsePrefix(v)
		if !ok {
			t.fail(fmt.Sprintf("%q is no address or CIDR", v))
			continue
		}
		out = append(out, p)
	}
	return out
}

func (t *policyTranslator) operation(field string, o *istiosec.Operation) model.Operation {
	t.upperCase(field+".methods", o.Methods, t.refusing)
	t.upperCase(field+".notMethods", o.NotMethods, !t.refusing)
	return model.Operation{
		Hosts: hosts(o.Hosts), NotHosts: hosts(o.NotHosts),
		Ports: t.ports(o.Ports), NotPorts: t.ports(o.NotPorts),
		Methods: matches(o.Methods), NotMethods: matches(o.NotMethods),
		Paths: t.paths(field+".paths", o.Paths), NotPaths: t.paths(field+".notPaths", o.NotPaths),
	}
}

func (t *policyTranslator) ports(list []string) []uint16 {
	var out []uint16
	for _, v := range list {
		n, err := strconv.ParseUint(v, 10, 16)
		if err != nil || n == 0 {
			t.fail(fmt.Sprintf("%q is no port number", v))
			continue
		}
		out = append(out, uint16(n))
	}
	return out
}

func (t *policyTranslator) condition(field string, w *istiosec.Condition) model.Condition {
	out := model.Condition{Key: w.Key}
	switch {
	case strings.HasPrefix(w.Key, "request.headers[") && strings.HasSuffix(w.Key, "]"), w.Key == "connection.sni":
		out.Matches, out.NotMatches = matches(w.Values), matches(w.NotValues)
	case w.Key == "source.ip", w.Key == "remote.ip", w.Key == "destination.ip":
		out.Prefixes, out.NotPrefixes = t.prefixes(w.Values), t.prefixes(w.NotValues)
	case w.Key == "destination.port":
		out.Ports, out.NotPorts = t.ports(w.Values), t.ports(w.NotValues)
	case w.Key == "source.principal":
		out.Sources, out.NotSources = sourcesOf(t.principals(w.Values)), sourcesOf(t.principals(w.NotValues))
	case w.Key == "source.serviceAccount":
		out.Sources, out.NotSources = sourcesOf(t.serviceAccounts(w.Values)), sourcesOf(t.serviceAccounts(w.NotValues))
	case w.Key == "source.namespace":
		out.Sources, out.NotSources = namespaceSources(w.Values), namespaceSources(w.NotValues)
	case w.Key == "source.trustDomain":
		out.Sources, out.NotSources = domainSources(t.domains(w.Values)), domainSources(t.domains(w.NotValues))
	default:
		t.fail(fmt.Sprintf("condition %q cannot be enforced", w.Key))
	}
	return out
}

func sourcesOf(ps []model.Principal) []model.Source {
	if len(ps) == 0 {
		return nil
	}
	return []model.Source{{Principals: ps}}
}

func namespaceSources(list []string) []model.Source {
	if len(list) == 0 {
		return nil
	}
	return []model.Source{{Namespaces: list}}
}

func domainSources(list []string) []model.Source {
	if len(list) == 0 {
		return nil
	}
	return []model.Source{{TrustDomains: list}}
}

// match parses Istio's string match: "*" present, "x*" prefix, "*x" suffix, else exact.
func match(v string) model.Match {
	switch {
	case v == "*":
		return model.Match{Kind: model.Present}
	case strings.HasPrefix(v, "*"):
		return model.Match{Kind: model.Suffix, Value: v[1:]}
	case strings.HasSuffix(v, "*"):
		return model.Match{Kind: model.Prefix, Value: v[:len(v)-1]}
	}
	return model.Match{Kind: model.Exact, Value: v}
}

func matches(list []string) []model.Match {
	var out []model.Match
	for _, v := range list {
		out = append(out, match(v))
	}
	return out
}

// hosts strips ports, as proxies do before comparing. With the port a DENY rule would never match.
func hosts(list []string) []model.Match {
	var out []model.Match
	for _, v := range list {
		if i := strings.LastIndexByte(v, ':'); i > 0 && (v[i+1:] == "*" || isPort(v[i+1:])) &&
			!strings.HasSuffix(v[:i], ":") {
			v = v[:i]
		}
		out = append(out, match(strings.TrimSuffix(v, ".")))
	}
	return out
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// paths parses path matches; those that contain {*} or {**} are templates.
func (t *policyTranslator) paths(field string, list []string) []model.Match {
	out := pathMatches(list)
	t.reportPaths(t.key, field, out)
	return out
}

func pathMatches(list []string) []model.Match {
	var out []model.Match
	for _, v := range list {
		m := match(v)
		if strings.Contains(v, "{*}") || strings.Contains(v, "{**}") {
			m = model.Match{Kind: model.Template, Value: v}
		}
		out = append(out, m)
	}
	return out
}

// reportPaths reports paths that no request can have.
func (r *report) reportPaths(key snapshot.Key, field string, list []model.Match) {
	for n, m := range list {
		if message, remedy := pathmatch.Fault(m); message != "" {
			r.find(key, "ISM0305", fmt.Sprintf("%s[%d]", field, n),
				"no request has a path like this, so that the value matches nothing: "+message, remedy)
		}
	}
}

// upperCase reports methods in a letter case that no client sends. DENY rules ignore case.
func (t *policyTranslator) upperCase(field string, list []string, refusing bool) {
	for n, v := range list {
		if v != strings.ToUpper(v) && !refusing {
			t.find(t.key, "ISM0306", fmt.Sprintf("%s[%d]", field, n),
				fmt.Sprintf("methods are compared with regard to case here, and %q is not what programs send", v),
				"write "+strings.ToUpper(v))
		}
	}
}
