package compile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	istiosec "istio.io/api/security/v1beta1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// findUnmatched reports what policies name and the mesh does not have: workloads, callers, ports. None of it is an
// error, since it may appear later, but most often it is a typo. Without any workload it reports nothing.
func findUnmatched(snap *snapshot.Snapshot, mesh *model.Mesh) []finding.Finding {
	return inquire(snap, mesh, func(q *inquiry) {
		g, _ := gather(&gathered{}, snap)
		if g == nil {
			return
		}
		u := unmatched{
			inquiry: q, in: g.mesh, backends: g.backends(), ids: everyIdentity(snap, mesh), known: map[string]bool{},
		}
		for _, id := range u.ids {
			u.known[id.id] = true
		}
		if len(u.backends) == 0 {
			return
		}
		for _, ap := range snapshot.Of[*security.AuthorizationPolicy](q.cfg) {
			key := snapshot.KeyOf(ap)
			q.guarded(key, nil, func() {
				labels := ap.Spec.GetSelector().GetMatchLabels()
				u.selector(key, "spec.selector", labels)
				for n, r := range ap.Spec.Rules {
					u.rule(key, fmt.Sprintf("spec.rules[%d]", n), r, labels)
				}
			})
		}
		for _, pa := range snapshot.Of[*security.PeerAuthentication](q.cfg) {
			key := snapshot.KeyOf(pa)
			q.guarded(key, nil, func() { u.selector(key, "spec.selector", pa.Spec.GetSelector().GetMatchLabels()) })
		}
		for _, s := range snapshot.Of[*corev1.Service](q.cfg) {
			key := snapshot.KeyOf(s)
			if len(s.Spec.Selector) > 0 {
				q.guarded(key, nil, func() { u.service(key, s.Spec.Selector) })
			}
		}
	})
}

// unmatched compares policies with the identities of the mesh.
type unmatched struct {
	*inquiry
	in       *meshInputs
	backends map[string]*backends // by namespace, if it has any
	ids      []caller
	known    map[string]bool // by SPIFFE ID
}

// backends returns the instances of each namespace that has any.
func (g *gathered) backends() map[string]*backends {
	out := map[string]*backends{}
	for _, ns := range g.sorted {
		u := newUnit(ns, inputs{mesh: g.mesh, objects: g.objects[ns], workloads: g.workloads[ns], closed: g.closed[ns]})
		for _, o := range elements(u.closed) {
			u.shut(o)
		}
		if u.instances(); len(u.backends.all) > 0 {
			out[ns] = &u.backends
		}
	}
	return out
}

// everyIdentity returns all potential callers in the mesh: workloads, and the gateways, which carry peers' calls.
func everyIdentity(snap *snapshot.Snapshot, mesh *model.Mesh) []caller {
	out := identitiesOf(slices.Collect(maps.Values(mesh.Workloads)), nil)
	if snap.Registry == nil {
		return out
	}
	for _, n := range snap.Registry.Nodes {
		if n.Gateway == nil {
			continue
		}
		if id, err := spiffe.Workload(mesh.TrustDomain, spiffe.SystemNamespace, n.Gateway.ServiceAccount); err == nil {
			out = append(out, caller{id.String(), spiffe.SystemNamespace, n.Gateway.ServiceAccount, nil})
		}
	}
	return out
}

// selecting returns the instances that an object of a namespace selects. An object in the root namespace selects
// everywhere.
func (u *unmatched) selecting(namespace string, labels map[string]string) []*instance {
	var out []*instance
	for ns, b := range u.backends {
		if ns != namespace && namespace != u.mesh.RootNamespace {
			continue
		}
		for _, i := range b.all {
			if i.selectedBy(labels) {
				out = append(out, i)
			}
		}
	}
	return out
}

func (u *unmatched) selector(key snapshot.Key, field string, labels map[string]string) {
	if len(u.selecting(key.Namespace, labels)) > 0 {
		return
	}
	u.unselected(key, field, labels, "the policy applies to nobody")
}

// service selects only in its own namespace, unlike a policy.
func (u *unmatched) service(key snapshot.Key, selector map[string]string) {
	b := u.backends[key.Namespace]
	if b != nil && slices.ContainsFunc(b.all, func(i *instance) bool { return i.selectedBy(selector) }) {
		return
	}
	u.unselected(key, "spec.selector", selector, "nobody serves it, and whoever calls it is refused")
}

func (u *unmatched) unselected(key snapshot.Key, field string, labels map[string]string, so string) {
	if u.backends[key.Namespace] == nil {
		u.find(key, "ISM0345", "metadata.namespace",
			"no workload is in namespace "+key.Namespace+", so "+so)
		return
	}
	remedy := "isthmus status -o wide lists the workloads; their labels come from their join tokens or WorkloadEntries"
	if near := u.nearLabels(key.Namespace, labels); near != "" {
		remedy = "did you mean " + near + "? " + remedy
	}
	u.find(key, "ISM0345", field,
		fmt.Sprintf("no workload of namespace %s has the labels %s, so %s", key.Namespace, written(labels), so), remedy)
}

func written(labels map[string]string) string {
	var out []string
	for _, k := range sortedKeys(labels) {
		out = append(out, k+"="+labels[k])
	}
	return strings.Join(out, ", ")
}

// nearLabels suggests a value that some workload has for the key, if the selector has one label.
func (u *unmatched) nearLabels(namespace string, labels map[string]string) string {
	if len(labels) != 1 || u.backends[namespace] == nil {
		return ""
	}
	for k := range labels {
		var values []string
		for l := range u.backends[namespace].byLabel {
			if l.key == k {
				values = append(values, k+"="+l.value)
			}
		}
		if slices.Sort(values); len(values) > 0 && len(values) <= 3 {
			return strings.Join(values, " or ")
		}
	}
	return ""
}

func (u *unmatched) rule(key snapshot.Key, field string, r *istiosec.Rule, labels map[string]string) {
	for n, f := range r.GetFrom() {
		at := fmt.Sprintf("%s.from[%d].source", field, n)
		s := f.GetSource()
		u.principals(key, at+".principals", s.GetPrincipals())
		u.principals(key, at+".notPrincipals", s.GetNotPrincipals())
		u.namespaces(key, at+".namespaces", s.GetNamespaces())
		u.namespaces(key, at+".notNamespaces", s.GetNotNamespaces())
		u.accounts(key, at+".serviceAccounts", s.GetServiceAccounts())
		u.accounts(key, at+".notServiceAccounts", s.GetNotServiceAccounts())
	}
	for n, to := range r.GetTo() {
		u.ports(key, fmt.Sprintf("%s.to[%d].operation.ports", field, n), to.GetOperation().GetPorts(), labels)
	}
	for n, w := range r.GetWhen() {
		at := fmt.Sprintf("%s.when[%d].values", field, n)
		switch w.GetKey() {
		case "source.principal":
			u.principals(key, at, w.GetValues())
		case "source.namespace":
			u.namespaces(key, at, w.GetValues())
		case "source.serviceAccount":
			u.accounts(key, at, w.GetValues())
		case "destination.port":
			u.ports(key, at, w.GetValues(), labels)
		}
	}
}

func (u *unmatched) principals(key snapshot.Key, field string, list []string) {
	t := &policyTranslator{report: &u.report, mesh: u.in, key: key, namespace: key.Namespace}
	for n, v := range list {
		at := fmt.Sprintf("%s[%d]", field, n)
		if whole, ok := strings.CutPrefix(v, "spiffe://"); ok {
			u.find(key, "ISM0347", at, fmt.Sprintf("%q matches nobody: a principal is written without spiffe://", v),
				"write "+whole)
			continue
		}
		p := t.principals([]string{v})[0]
		if p.Match.Kind == model.Exact {
			if td, _, whole := strings.Cut(v, "/"); !whole || !u.in.isOwnDomain(td) && u.in.peerOf(td) == "" {
				u.find(key, "ISM0347", at,
					fmt.Sprintf("%q matches nobody: its trust domain is neither this mesh's nor a peer's", v),
					"write <trust domain>/ns/<namespace>/sa/<service account>, with trust domain "+
						u.mesh.TrustDomain.Name()+" for this mesh")
				continue
			}
		}
		exact := p.Match.Kind == model.Exact
		switch {
		case p.Peer != "", exact && u.known[p.Match.Value]:
		case !exact && len(u.in.peers) > 0: // it may mean a peer's callers
		case !exact && slices.ContainsFunc(u.ids, func(id caller) bool { return authz.Matches(p.Match, id.id) }):
		default:
			u.nobody(key, at, "principal", v)
		}
	}
}

func (u *unmatched) namespaces(key snapshot.Key, field string, list []string) {
	for n, v := range list {
		if !slices.ContainsFunc(u.ids, func(id caller) bool { return authz.Glob(v, id.namespace) }) {
			u.nobody(key, fmt.Sprintf("%s[%d]", field, n), "namespace", v)
		}
	}
}

func (u *unmatched) accounts(key snapshot.Key, field string, list []string) {
	for n, v := range list {
		ns, sa, qualified := strings.Cut(v, "/")
		if !qualified {
			ns, sa = key.Namespace, v
		}
		if !slices.ContainsFunc(u.ids, func(id caller) bool { return id.namespace == ns && id.serviceAccount == sa }) {
			u.nobody(key, fmt.Sprintf("%s[%d]", field, n), "service account", v)
		}
	}
}

func (u *unmatched) nobody(key snapshot.Key, field, what, value string) {
	u.find(key, "ISM0346", field, fmt.Sprintf("no workload of the mesh has the %s %q", what, value))
}

// ports are those of the workload; naming the Service's port is a common mistake.
func (u *unmatched) ports(key snapshot.Key, field string, list []string, labels map[string]string) {
	served := map[uint16]bool{}
	for _, i := range u.selecting(key.Namespace, labels) {
		w := u.mesh.Workloads[model.WorkloadID{Namespace: i.namespace, Name: i.name}]
		if w == nil {
			return // not all ports of unregistered workloads are known
		}
		for _, in := range w.Inbound {
			served[in.Port] = true
		}
	}
	if len(served) == 0 {
		return
	}
	for n, v := range list {
		port, err := strconv.ParseUint(v, 10, 16)
		if err != nil || served[uint16(port)] {
			continue
		}
		var have []string
		for _, p := range slices.Sorted(maps.Keys(served)) {
			have = append(have, strconv.Itoa(int(p)))
		}
		u.find(key, "ISM0348", fmt.Sprintf("%s[%d]", field, n),
			fmt.Sprintf("no workload that the policy selects listens at %s; they listen at %s", v,
				strings.Join(have, ", ")))
	}
}
