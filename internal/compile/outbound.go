package compile

import (
	"cmp"
	"maps"
	"slices"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// outbound gives every workload the destinations that it may call, and no others: need to know. Where they are too many
// the oldest stand.
func outbound(c *compiler) {
	byID := map[string][]*model.Workload{}
	for _, w := range c.mesh.Workloads {
		byID[w.Identity.String()] = append(byID[w.Identity.String()], w)
	}
	for _, svc := range c.oldest(maps.Values(c.mesh.Services)) {
		for _, port := range svc.Ports {
			imp := c.imported[model.EndpointSet{Host: svc.Host, Port: port.Number}]
			for _, caller := range allowed(port, imp) {
				for _, w := range byID[caller.ID] {
					if len(w.Outbound) >= maxWorkloadDestinations {
						c.leaveOut(svc, 1)
						continue
					}
					w.Outbound = append(w.Outbound, model.Outbound{Service: svc, Port: port, Import: imp, By: caller.By})
				}
			}
		}
	}
	c.limitProxies()
	for _, w := range c.mesh.Workloads {
		sortOutbound(w.Outbound)
	}
}

func sortOutbound(list []model.Outbound) {
	slices.SortFunc(list, func(a, b model.Outbound) int {
		return cmp.Or(cmp.Compare(a.Service.Host, b.Service.Host), cmp.Compare(a.Port.Number, b.Port.Number))
	})
}

// allowed: an import's own list decides for an imported port, the servers' policies for any other. Whether anybody serves
// an import now is not asked: its callers find it under the same name and address, and are told why they have to wait.
func allowed(port *model.Port, imp *model.Import) []model.Caller {
	if imp == nil {
		return port.Callers
	}
	var out []model.Caller
	for _, id := range imp.Callers {
		out = append(out, model.Caller{ID: id, By: []model.Ref{imp.Ref}})
	}
	return out
}

func byID(a, b *model.Workload) int {
	return cmp.Or(cmp.Compare(a.ID.Namespace, b.ID.Namespace), cmp.Compare(a.ID.Name, b.ID.Name))
}

// proxies are the registered agents with what they serve.
func proxies(c *compiler) {
	if c.snap.Registry == nil {
		return
	}
	for _, n := range c.snap.Registry.Nodes {
		p := &model.Proxy{Name: n.Name}
		if n.Role == snapshot.RoleGateway && n.Gateway != nil {
			id, err := spiffe.Workload(c.mesh.TrustDomain, spiffe.SystemNamespace, n.Gateway.ServiceAccount)
			if err != nil {
				continue // refused when it registered
			}
			p.Gateway = &model.Gateway{
				Identity: id, Inner: n.Gateway.Inner(), Outer: n.Gateway.Outer(),
				MaxConnections: n.Gateway.Connections(), Control: c.snap.ControlOf(n),
			}
		}
		c.mesh.Proxies[n.Name] = p
	}
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
