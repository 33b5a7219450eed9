package compile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	corev1 "k8s.io/api/core/v1"
)

// exporting compares an export with the workloads behind it and with the callers that its peer can have.
func (x *crossing) exporting(key snapshot.Key, e *v1alpha1.FederatedExport) {
	told := false
	for n, to := range e.Spec.To {
		field := fmt.Sprintf("spec.to[%d]", n)
		if !x.hasPeer(to.Peer) {
			x.nearPeer(key, field+".peer", to.Peer)
			continue
		}
		for _, m := range x.mesh.Exports {
			if m.Name != key.Namespace+"/"+key.Name || m.Peer.Name != to.Peer {
				continue
			}
			x.rules(key, field, m, to.Rules)
			if len(x.accounts) == 0 {
				continue // no workload has joined, or there is no registry
			}
			if !told && !x.mesh.IsReady(m) {
				told = true
				x.find(key, "ISM0330", "spec.service",
					fmt.Sprintf("no endpoint of %s is ready at port %d, so every call fails",
						snapshot.KeyFor[*corev1.Service](m.Service.ID.Namespace, m.Service.ID.Name), m.Port.Number))
			}
			if !x.admitted(m) {
				x.nobodyAdmitted(key, field, m)
			}
		}
	}
}

func (x *crossing) nearPeer(key snapshot.Key, field, missing string) {
	var names []string
	for _, p := range snapshot.Of[*v1alpha1.MeshPeer](x.cfg) {
		names = append(names, p.Name)
	}
	if near := finding.Nearest(missing, names); near != "" {
		x.find(key, "ISM0334", field, fmt.Sprintf("there is no peer %q", missing), "did you mean "+near+"?")
	}
}

// admitted reports whether some workload behind an export may admit some call of the peer. It does not judge
// unregistered workloads, nor ports without mutual TLS, where the gateway has no identity.
func (x *crossing) admitted(e *model.Export) bool {
	judged := false
	for _, ep := range x.mesh.Endpoints[e.Set()] {
		w := x.mesh.Workloads[ep.By]
		if w == nil {
			return true
		}
		for _, in := range w.Inbound {
			if in.Port != ep.Port {
				continue
			}
			if in.Mode == model.Disable || x.admits(e, in.Policies) {
				return true
			}
			judged = true
		}
	}
	return !judged
}

// admits reports whether a workload's policies may allow some of an export's calls, which our gateways make.
func (x *crossing) admits(e *model.Export, ps model.Policies) bool {
	return slices.ContainsFunc(offeredTo(e),
		func(caller model.Match) bool { return len(x.verdicts(e, ps, caller)) > 0 })
}

// possible is a verdict other than a denial, and the request that it is about.
type possible struct {
	request authz.Request
	authz.Verdict
}

// verdicts returns the possible verdicts on calls of caller, a pattern, that our gateway carries through an export.
func (x *crossing) verdicts(e *model.Export, ps model.Policies, caller model.Match) []possible {
	server := authz.Server{HTTP: e.Port.Protocol.IsHTTP(), TrustDomain: x.mesh.TrustDomain.Name(), Gateways: x.gateways}
	if len(server.Gateways) == 0 { // a future gateway will probably have this name
		server.Gateways = []string{authz.WorkloadsOf(server.TrustDomain) + spiffe.SystemNamespace + "/sa/gateway"}
	}
	rules := server.Read(ps)
	var out []possible
	for _, gateway := range server.Gateways {
		r := authz.Request{Caller: authz.Is(gateway), Asserted: authz.Is(caller.Value)}
		if caller.Kind == model.Prefix {
			r.Asserted = authz.Begins(caller.Value)
		}
		if v := rules.Decide(r); v.Decision != authz.Denied {
			out = append(out, possible{r, v})
		}
	}
	return out
}

// nobodyAdmitted reports an export that no policy admits, and which policy to write.
func (x *crossing) nobodyAdmitted(key snapshot.Key, field string, e *model.Export) {
	var principals []string
	why := "its AuthorizationPolicies allow none of the callers that the export lets through"
	if e.Port.Protocol.IsHTTP() {
		for _, r := range e.Rules {
			for _, c := range r.Callers {
				v := strings.TrimPrefix(c.Value, "spiffe://")
				if c.Kind == model.Prefix {
					v += "*"
				}
				principals = append(principals, v)
			}
			if len(r.Callers) == 0 {
				principals = append(principals, e.Peer.TrustDomain.Name()+"/*")
			}
		}
	} else {
		why = "a raw connection reaches it in the name of this mesh's own gateway, which none of its AuthorizationPolicies allows"
		for _, g := range x.gateways {
			principals = append(principals, strings.TrimPrefix(g, "spiffe://"))
		}
	}
	slices.Sort(principals)
	principals = slices.Compact(principals)
	if len(principals) == 0 {
		return // without rules or gateways, that is the problem to solve first
	}
	x.find(key, "ISM0328", field,
		fmt.Sprintf("every call of peer %s is refused by the workload behind %s/%s: %s", e.Peer.Name,
			e.Service.ID.Namespace, e.Service.ID.Name, why),
		fmt.Sprintf(`write an AuthorizationPolicy in namespace %s that selects the workload, with the rule {from: [{source: {principals: [%s]}}]}`,
			e.Service.ID.Namespace, `"`+strings.Join(principals, `", "`)+`"`))
}

// callerForm is the only form of identity path that a peer's gateway may assert. A prefix must be extensible to it.
var callerForm = regexp.MustCompile(`^/ns/[A-Za-z0-9][A-Za-z0-9._-]*/sa/[A-Za-z0-9][A-Za-z0-9._-]*$`)

// rules reports rules of an export that no request can match.
func (x *crossing) rules(key snapshot.Key, field string, e *model.Export, rules []v1alpha1.ExportRule) {
	for n, r := range rules {
		for m, v := range r.Callers {
			rest := strings.TrimPrefix(v, "spiffe://"+e.Peer.TrustDomain.Name())
			prefix, open := strings.CutSuffix(rest, "*")
			if open && beginsCaller(prefix) || !open && callerForm.MatchString(rest) {
				continue
			}
			x.find(key, "ISM0331", fmt.Sprintf("%s.rules[%d].callers[%d]", field, n, m),
				fmt.Sprintf("no caller of peer %s can be %q", e.Peer.Name, v),
				"write spiffe://"+e.Peer.TrustDomain.Name()+"/ns/<namespace>/sa/<service account>")
		}
	}
}

// beginsCaller reports whether prefix is the beginning of some identity.
func beginsCaller(prefix string) bool {
	for _, end := range []string{
		"", "/ns/a/sa/a", "ns/a/sa/a", "s/a/sa/a", "/a/sa/a", "a/sa/a", "/sa/a", "sa/a", "a",
		"/a",
	} {
		if callerForm.MatchString(prefix + end) {
			return true
		}
	}
	return false
}
