package compile

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Compiled is a mesh together with what it was compiled from.
type Compiled struct {
	Snapshot *snapshot.Snapshot
	Mesh     *model.Mesh // nil when the configuration means none
	Findings []finding.Finding
	// OnlyEndpoints: the mesh before differs in nothing but where things are served.
	OnlyEndpoints bool
}

// Next compiles a snapshot by the shortest way. When what changed since before lies in some namespaces and touches nothing
// that reaches further, only those namespaces are compiled anew: the cost is in what they hold, not in what the mesh holds.
// The outcome is always that of Mesh. Before may be nil.
func Next(before *Compiled, snap *snapshot.Snapshot) *Compiled {
	if before != nil && before.Mesh != nil && !slices.ContainsFunc(before.Findings, isConflict) {
		if touched, served, ok := touchedNamespaces(before.Snapshot, snap, before.Mesh.RootNamespace); ok && samePeers(before.Mesh, snap) {
			if c := onlyEndpoints(before, snap, touched, served); c != nil {
				return c
			}
			if c := partial(before, snap, touched); c != nil {
				return c
			}
		}
	}
	mesh, findings := Mesh(snap)
	return &Compiled{Snapshot: snap, Mesh: mesh, Findings: findings}
}

// samePeers says whether time alone has changed what a peer may do: a peering ends, roots grow stale.
func samePeers(before *model.Mesh, snap *snapshot.Snapshot) bool {
	for name, v := range peerrules.All(snap, before.TrustDomain.Name()) {
		p := before.Peers[name]
		if v.Control != (p != nil) || p != nil && v.Live != p.Live {
			return false // a peer that was left out for another reason is compiled anew each time, and left out again
		}
	}
	return true
}

// onlyEndpoints is the shortest way: addresses of WorkloadEntries and readiness changed, and nothing else follows from it.
func onlyEndpoints(before *Compiled, snap *snapshot.Snapshot, touched, served map[string]bool) *Compiled {
	if len(served) != len(touched) {
		return nil
	}
	c := &compiler{snap: onlyNamespaces(snap, touched, before.Mesh.RootNamespace)}
	c.cfg = c.snap.Config
	posture(c)
	c.mesh.Namespaces = before.Mesh.Namespaces
	for _, step := range []func(*compiler){closings, instances, peerAuths, services, endpoints} {
		step(c)
	}
	if len(c.findings) > 0 || !sameServers(before.Mesh, c.mesh) ||
		slices.ContainsFunc(before.Findings, func(f finding.Finding) bool {
			return touched[namespaceOf(f.Object)] && strings.HasPrefix(f.Object, "WorkloadEntry ") // it may be mended now
		}) {
		return nil
	}
	out := *before.Mesh
	out.Endpoints = maps.Clone(before.Mesh.Endpoints)
	for _, svc := range c.mesh.Services {
		for _, p := range svc.Ports {
			set := model.EndpointSet{Host: svc.Host, Port: p.Number}
			if eps, ok := c.mesh.Endpoints[set]; ok {
				out.Endpoints[set] = eps
			} else {
				delete(out.Endpoints, set)
			}
		}
	}
	withImportEndpoints(before, &out, snap, touched)
	return &Compiled{Snapshot: snap, Mesh: &out, Findings: before.Findings, OnlyEndpoints: true}
}

// withImportEndpoints makes the endpoint sets of those imports anew whose sources may have changed: by a peer's word of what is
// ready, or by local endpoints beside the peers.
func withImportEndpoints(before *Compiled, out *model.Mesh, snap *snapshot.Snapshot, touched map[string]bool) {
	for _, i := range out.Imports {
		if i.Local != nil && touched[i.ID.Namespace] || slices.ContainsFunc(i.Remotes, func(r model.Remote) bool {
			return before.Snapshot.Peers[r.Peer.Name].Readiness != snap.Peers[r.Peer.Name].Readiness
		}) {
			addImportEndpoints(out.Endpoints, i, snap.Peers)
		}
	}
}

// sameServers says whether the identities behind every port, and the callers they admit, are as they were.
func sameServers(before, now *model.Mesh) bool {
	for id, svc := range now.Services {
		was := before.Services[id]
		if was == nil || svc.DNS {
			return false
		}
		for _, p := range svc.Ports {
			q := portOf(was, p.Number)
			if q == nil || q.MTLS != p.MTLS || !slices.Equal(q.Identities, p.Identities) {
				return false
			}
		}
	}
	return true
}

// partialSteps compile some namespaces alone, after posture.
var partialSteps = []func(*compiler){closings, instances, peerAuths, services, policies, workloads}

// partial compiles the touched namespaces and puts them into the mesh as it was; nil when that cannot be enough.
func partial(before *Compiled, snap *snapshot.Snapshot, touched map[string]bool) *Compiled {
	if federates(snap.Config, touched) {
		return nil
	}
	c := &compiler{snap: onlyNamespaces(snap, touched, before.Mesh.RootNamespace)}
	c.cfg = c.snap.Config
	posture(c)
	c.mesh.Namespaces = namespaces(snap)
	if !slices.Equal(c.mesh.Namespaces, before.Mesh.Namespaces) {
		return nil // which hosts a ServiceEntry may claim hangs from them, everywhere
	}
	for _, step := range partialSteps {
		step(c)
	}
	old := identitiesOf(before.Mesh.Workloads)
	workloads := maps.Clone(before.Mesh.Workloads)
	maps.DeleteFunc(workloads, func(id model.WorkloadID, _ *model.Workload) bool { return touched[id.Namespace] })
	maps.Copy(workloads, c.mesh.Workloads)
	if !maps.Equal(old, identitiesOf(workloads)) || c.clashes(before.Mesh, touched) {
		return nil
	}
	all := *before.Mesh
	all.Workloads = workloads
	c.callersAmong((&compiler{mesh: &all}).knownIdentities())
	endpoints(c)

	out := all
	out.Services = maps.Clone(before.Mesh.Services)
	out.Endpoints = maps.Clone(before.Mesh.Endpoints)
	for id, svc := range before.Mesh.Services {
		if touched[id.Namespace] {
			delete(out.Services, id)
			for _, p := range svc.Ports {
				delete(out.Endpoints, model.EndpointSet{Host: svc.Host, Port: p.Number})
			}
		}
	}
	maps.Copy(out.Services, c.mesh.Services)
	maps.Copy(out.Endpoints, c.mesh.Endpoints)
	rewire(before.Mesh, &out, c.mesh.Services, touched)
	if isCrowded(&out) {
		return nil
	}
	withImportEndpoints(before, &out, snap, touched)
	out.Proxies = map[string]*model.Proxy{}
	proxies(&compiler{snap: snap, mesh: &out})
	return &Compiled{Snapshot: snap, Mesh: &out, Findings: mergeFindings(before.Findings, c.findings, touched)}
}

func identitiesOf(ws map[model.WorkloadID]*model.Workload) map[string]bool {
	out := make(map[string]bool, len(ws))
	for _, w := range ws {
		out[w.Identity.String()] = true
	}
	return out
}

// clashes says whether names or addresses may meet across the border of the touched namespaces: who wins is then a matter
// of the whole mesh.
func (c *compiler) clashes(before *model.Mesh, touched map[string]bool) bool {
	hosts, addrs := map[string]bool{}, map[netip.Prefix]bool{}
	for _, svc := range c.mesh.Services {
		hosts[svc.Host] = true
		if c.ownAddresses(svc) {
			return true
		}
		addrs[single(svc.VIP)], addrs[single(svc.VIP6)] = true, true
	}
	for id, svc := range before.Services {
		if touched[id.Namespace] && c.ownAddresses(svc) || !touched[id.Namespace] && hosts[svc.Host] ||
			slices.ContainsFunc(svc.Prefixes, func(p netip.Prefix) bool { return addrs[p] }) {
			return true
		}
	}
	return slices.ContainsFunc(c.findings, isConflict)
}

// isConflict: two objects want one name, address or place, and one of them may be anywhere.
func isConflict(f finding.Finding) bool {
	return slices.Contains([]string{"ISM0012", "ISM0022", "ISM0025", "ISM0208", "ISM0215"}, f.Code)
}

// ownAddresses says whether a service has any address but the one that the mesh gave it.
func (c *compiler) ownAddresses(svc *model.Service) bool {
	return len(svc.Prefixes) > 0 || c.addressRank(svc) > 0
}

// rewire gives every workload the destinations that it now may call in the touched namespaces, beside those elsewhere.
func rewire(before, out *model.Mesh, fresh map[model.ServiceID]*model.Service, touched map[string]bool) {
	byID := map[string][]*model.Workload{}
	elsewhere := map[string][]model.Outbound{} // by identity: destinations outside the touched namespaces
	for _, w := range before.Workloads {
		id := w.Identity.String()
		if _, known := elsewhere[id]; !known {
			elsewhere[id] = slices.DeleteFunc(slices.Clone(w.Outbound), func(o model.Outbound) bool { return touched[o.Service.ID.Namespace] })
		}
	}
	for id, w := range out.Workloads {
		keep := elsewhere[w.Identity.String()]
		if !touched[id.Namespace] && len(keep) == len(w.Outbound) && !mayReach(w, fresh) {
			continue // as it was
		}
		changed := *w
		changed.Outbound = append([]model.Outbound(nil), keep...)
		out.Workloads[id] = &changed
		byID[w.Identity.String()] = append(byID[w.Identity.String()], &changed)
	}
	for _, svc := range fresh {
		for _, port := range svc.Ports {
			route := model.ToService(svc, port)
			for _, caller := range port.Callers {
				for _, w := range byID[caller.ID] {
					w.Outbound = append(w.Outbound, model.Outbound{Service: svc, Port: port, Route: route, By: caller.By})
				}
			}
		}
	}
	for _, ws := range byID {
		for _, w := range ws {
			sortOutbound(w.Outbound)
		}
	}
}

// mayReach says whether one of the services lists the workload as a caller.
func mayReach(w *model.Workload, services map[model.ServiceID]*model.Service) bool {
	id := w.Identity.String()
	for _, svc := range services {
		for _, port := range svc.Ports {
			if _, ok := slices.BinarySearchFunc(port.Callers, id, func(c model.Caller, id string) int { return strings.Compare(c.ID, id) }); ok {
				return true
			}
		}
	}
	return false
}

func mergeFindings(before, fresh []finding.Finding, touched map[string]bool) []finding.Finding {
	var out []finding.Finding
	for _, f := range fresh {
		if touched[namespaceOf(f.Object)] { // the root namespace was read too, but is not touched
			out = append(out, f)
		}
	}
	for _, f := range before {
		if !touched[namespaceOf(f.Object)] {
			out = append(out, f)
		}
	}
	finding.Sort(out)
	return out
}

// namespaceOf reads "Kind namespace/name".
func namespaceOf(object string) string {
	_, name, _ := strings.Cut(object, " ")
	ns, _, namespaced := strings.Cut(name, "/")
	if !namespaced {
		return ""
	}
	return ns
}
