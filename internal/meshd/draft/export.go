package draft

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	security "istio.io/client-go/pkg/apis/security/v1"

	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// exporting is an export being drafted.
type exporting struct {
	*adminapi.ExportDraftRequest
	peer    *v1alpha1.MeshPeer
	service *model.Service
	port    *model.Port
	callers []string // SPIFFE IDs
}

// Export drafts the objects of an export, including the policy that it needs.
func Export(snap *snapshot.Snapshot, r *adminapi.ExportDraftRequest) (*adminapi.DraftResponse, error) {
	mesh, _ := compile.Mesh(snap)
	if mesh == nil {
		return nil, refusedDraft("the configuration means no mesh: isthmus status --findings")
	}
	e := exporting{ExportDraftRequest: r}
	var err error
	if e.peer, err = peerNamed(snap, r.Peer); err != nil {
		return nil, err
	}
	if e.service, e.port, err = servicePort(mesh, r.Service); err != nil {
		return nil, err
	}
	for _, c := range r.Callers {
		e.callers = append(e.callers, callerID(e.peer.Spec.TrustDomain, c))
	}
	http := e.port.Protocol.IsHTTP()
	if !http && len(r.Callers)+len(r.Methods)+len(r.Paths) > 0 {
		return nil,
			refusedDraft("port %d of %s speaks %s: callers, methods and paths cannot be told apart there, so that the whole "+
				"peer may connect or nobody; leave --callers, --methods and --paths out, or name the Service's port http-…",
				e.port.Number, e.service.ID, e.port.Protocol)
	}
	d := &draft{snap: snap, written: []map[string]any{e.export(http)}}
	policy := e.policyKey()
	change, _, err := d.change()
	if err != nil {
		return nil, err
	}
	next := changed(without(snap, policy), change) // one of an earlier draft is not what decides
	compiled := compile.Next(nil, next)
	with := compiled.Mesh
	needed := with != nil && slices.ContainsFunc(compiled.Report(), func(f finding.Finding) bool {
		return f.Code == "ISM0328" && f.Object == keyOf(d.written[0])
	})
	var note string
	if !needed && with != nil && e.hasNoWorkload(with) &&
		snap.Config.Mesh().Spec.DefaultAction != v1alpha1.DefaultAllow {
		needed = true
		note = "No workload is behind it yet, so that nobody knows whether the policy is needed: drop it where another one admits " +
			"the peer's callers."
	}
	if needed {
		if o := e.policy(snap, with, http); o != nil {
			d.written = append(d.written, o)
		} else {
			note = "The workloads behind it let in no call of the peer, and what selects them is not known here: write the " +
				"AuthorizationPolicy yourself."
		}
	}
	resp, err := d.judge()
	if err != nil {
		return nil, err
	}
	resp.File = fmt.Sprintf("export-%s-%s-%s.yaml", e.service.ID.Namespace, e.name(), e.peer.Name)
	if wide := e.unrestricted(http); wide != "" {
		resp.Notes = append(resp.Notes, wide)
	}
	if note != "" {
		resp.Notes = append(resp.Notes, note)
	}
	return resp, nil
}

// unrestricted says what a draft admits that names no callers, methods or paths.
func (e exporting) unrestricted(http bool) string {
	switch {
	case !http:
		return "The whole peer " + e.peer.Name + " may connect: a raw connection carries no caller."
	case len(e.Callers)+len(e.Methods)+len(e.Paths) == 0:
		return "Every caller of peer " + e.peer.Name +
			" may send it every request: --callers, --methods and --paths narrow that."
	}
	return ""
}

// name returns the name that peers see.
func (e exporting) name() string { return cmp.Or(e.As, e.service.ID.Name) }

// set identifies its endpoints.
func (e exporting) set() model.EndpointSet {
	return model.EndpointSet{Host: e.service.Host, Port: e.port.Number}
}

func (e exporting) policyKey() snapshot.Key {
	return snapshot.KeyFor[*security.AuthorizationPolicy](e.service.ID.Namespace, e.name()+"-"+e.peer.Name)
}

func (e exporting) export(http bool) map[string]any {
	to := map[string]any{"peer": e.peer.Name}
	if http {
		rule := map[string]any{}
		for field, values := range map[string][]string{"callers": e.callers, "methods": e.Methods, "paths": e.Paths} {
			if len(values) > 0 {
				rule[field] = list(values)
			}
		}
		to["rules"] = []any{rule}
	}
	spec := map[string]any{"service": e.service.ID.Name, "port": int(e.port.Number), "to": []any{to}}
	if e.As != "" && e.As != e.service.ID.Name {
		spec["alias"] = e.As
	}
	return object(ownAPI, "FederatedExport", e.service.ID.Namespace, e.name()+"-"+e.peer.Name, spec)
}

// policy admits to the workloads what the export admits: callers by the identity that their peer's gateway asserts, and
// raw connections by the identity of our own gateways. It returns nil if it is unknown what selects the workloads.
func (e exporting) policy(snap *snapshot.Snapshot, mesh *model.Mesh, http bool) map[string]any {
	s := snapshot.Named[*corev1.Service](snap.Config.Objects, e.service.ID.Namespace, e.service.ID.Name)
	if s == nil || len(s.Spec.Selector) == 0 {
		return nil
	}
	labels := map[string]any{}
	for k, v := range s.Spec.Selector {
		labels[k] = v
	}
	operation, principals := map[string]any{}, []string{}
	if ports := e.workloadPorts(mesh); len(ports) > 0 {
		operation["ports"] = list(ports)
	}
	if http {
		for _, c := range e.callers {
			principals = append(principals, strings.TrimPrefix(c, "spiffe://"))
		}
		if len(principals) == 0 {
			principals = []string{e.peer.Spec.TrustDomain + "/*"}
		}
		for field, values := range map[string][]string{"methods": e.Methods, "paths": e.Paths} {
			if len(values) > 0 {
				operation[field] = list(values)
			}
		}
	} else {
		for _, p := range mesh.Proxies {
			if p.Gateway != nil {
				principals = append(principals, strings.TrimPrefix(p.Gateway.Identity.String(), "spiffe://"))
			}
		}
		slices.Sort(principals)
		principals = slices.Compact(principals)
	}
	rule := map[string]any{"from": []any{map[string]any{"source": map[string]any{"principals": list(principals)}}}}
	if len(operation) > 0 {
		rule["to"] = []any{map[string]any{"operation": operation}}
	}
	key := e.policyKey()
	return object(securityAPI, key.Kind, key.Namespace, key.Name, map[string]any{
		"selector": map[string]any{"matchLabels": labels}, "rules": []any{rule},
	})
}

// hasNoWorkload reports whether no workload serves it, so there is no policy to check.
func (e exporting) hasNoWorkload(mesh *model.Mesh) bool {
	return len(mesh.Endpoints[e.set()]) == 0
}

// workloadPorts returns the ports of the workloads that serve it.
func (e exporting) workloadPorts(mesh *model.Mesh) (out []string) {
	seen := map[uint16]bool{}
	for _, ep := range mesh.Endpoints[e.set()] {
		seen[ep.Port] = true
	}
	for p := range seen {
		out = append(out, strconv.Itoa(int(p)))
	}
	slices.Sort(out)
	return out
}

// callerID returns the SPIFFE ID of a caller as the peer's gateway asserts it. The caller may be given as a SPIFFE ID,
// as "namespace/account" of the peer's trust domain, with "*" for the account, or as "*" for everybody.
func callerID(trustDomain, caller string) string {
	if strings.HasPrefix(caller, "spiffe://") {
		return caller
	}
	ns, sa, qualified := strings.Cut(caller, "/")
	switch {
	case caller == "*":
		return "spiffe://" + trustDomain + "/*"
	case qualified && sa == "*":
		return "spiffe://" + trustDomain + "/ns/" + ns + "/*"
	case qualified:
		return "spiffe://" + trustDomain + "/ns/" + ns + "/sa/" + sa
	}
	return caller // refused later, like any text that is not a SPIFFE ID
}

// servicePort finds a service's port by "name", "namespace/name" or host, with ":port" if there are several.
func servicePort(mesh *model.Mesh, asked string) (*model.Service, *model.Port, error) {
	name, port, hasPort := strings.Cut(asked, ":")
	var found []*model.Service
	var names []string
	for _, s := range mesh.Services {
		full := s.ID.Namespace + "/" + s.ID.Name
		if name == full || slices.Contains(model.HostNames(s, mesh.Domain), name) {
			found = append(found, s)
		}
		names = append(names, full, s.ID.Name)
	}
	slices.Sort(names)
	switch len(found) {
	case 0:
		return nil, nil, notFound("there is no service %q%s: isthmus services lists them", name,
			suggestion(name, slices.Compact(names)))
	case 1:
	default:
		var which []string
		for _, s := range found {
			which = append(which, s.ID.Namespace+"/"+s.ID.Name)
		}
		slices.Sort(which)
		return nil, nil, refusedDraft("several namespaces have a service %q: write one of %s", name,
			strings.Join(which, ", "))
	}
	s := found[0]
	var ports []string
	for _, p := range s.Ports {
		if port == strconv.Itoa(int(p.Number)) || !hasPort && len(s.Ports) == 1 {
			return s, p, nil
		}
		ports = append(ports, strconv.Itoa(int(p.Number)))
	}
	full := s.ID.Namespace + "/" + s.ID.Name
	if hasPort {
		return nil, nil, notFound("service %s has no port %s, but %s", full, port, strings.Join(ports, ", "))
	}
	return nil, nil, refusedDraft("service %s has several ports: write %s:PORT, with one of %s", full, full,
		strings.Join(ports, ", "))
}
