package compile

import (
	"cmp"
	"slices"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

func byID(a, b *model.Workload) int {
	return cmp.Or(cmp.Compare(a.ID.Namespace, b.ID.Namespace), cmp.Compare(a.ID.Name, b.ID.Name))
}

// proxies are the registered agents with what they serve.
func proxies(c *compiler) {
	if c.snap.Registry == nil {
		return
	}
	var ids []string
	f := federation(c.mesh)
	for _, n := range c.snap.Registry.Nodes {
		p := &model.Proxy{Name: n.Name}
		if n.Role == snapshot.RoleGateway && n.Gateway != nil {
			id, err := spiffe.Workload(c.mesh.TrustDomain, spiffe.SystemNamespace, n.Gateway.ServiceAccount)
			if err != nil {
				continue // refused when it registered
			}
			p.Gateway = &model.Gateway{
				Identity: id, Inner: n.Gateway.Inner(), Outer: n.Gateway.Outer(),
				MaxConnections: n.Gateway.Connections(), Federation: f,
				Control: spiffe.Control(c.mesh.TrustDomain), ControlAt: c.snap.ControlOf(n),
			}
			ids = append(ids, id.String())
		}
		c.mesh.Proxies[n.Name] = p
	}
	slices.Sort(ids)
	c.mesh.Gateways = slices.Compact(ids)
	for _, w := range c.mesh.Workloads {
		p := c.mesh.Proxies[w.Node]
		switch {
		case p == nil:
		case w.Sidecar:
			p.Sidecars = append(p.Sidecars, w)
			c.mesh.Proxies[w.Proxy()] = &model.Proxy{Name: w.Proxy(), Workloads: []*model.Workload{w}}
		default:
			p.Workloads = append(p.Workloads, w)
		}
	}
	for _, p := range c.mesh.Proxies {
		slices.SortFunc(p.Workloads, byID)
		slices.SortFunc(p.Sidecars, byID)
	}
}

// federation is what crosses each gateway. Every gateway serves every peer: a peer calls at whichever of the mesh's
// outer addresses it likes, the mesh's callers at whichever gateway answers, and so do the control planes on both
// sides. An import that nobody may call crosses nowhere, nor does one that no peer serves now.
func federation(m *model.Mesh) *model.Federation {
	f := &model.Federation{Exports: m.Exports, Invites: m.Invites, Bootstraps: m.Bootstraps}
	for _, name := range sortedKeys(m.Peers) {
		f.Peers = append(f.Peers, m.Peers[name])
	}
	for _, i := range m.Imports {
		if len(i.Callers) > 0 && len(i.Remotes) > 0 {
			f.Imports = append(f.Imports, i)
		}
	}
	return f
}
