package compile

import (
	"reflect"
	"slices"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// proxies are the registered agents with what they serve.
type proxies struct {
	all      map[string]*model.Proxy
	gateways []string // SPIFFE IDs, sorted
}

func (l *linker) proxies() {
	l.now.federation = keep(l.before.federation, l.federation())
	from := []any{l.in.mesh, l.in.nodes, l.in.control, l.now.workloads, l.now.federation}
	l.now.proxies = l.before.proxies.again(from, func() *proxies {
		out := &proxies{all: map[string]*model.Proxy{}}
		for _, n := range elements(l.in.nodes) {
			if p := l.proxyOf(n); p != nil {
				out.all[n.Name] = p
			}
		}
		for _, w := range l.mesh.Workloads {
			out.add(w)
		}
		for name, p := range out.all {
			slices.SortFunc(p.Workloads, byID)
			slices.SortFunc(p.Sidecars, byID)
			if was := l.was.Proxies[name]; was != nil && sameProxies(was, p) {
				out.all[name] = was
			}
			if p.Gateway != nil {
				out.gateways = append(out.gateways, p.Gateway.Identity.String())
			}
		}
		slices.Sort(out.gateways)
		out.gateways = slices.Compact(out.gateways)
		return out
	})
	l.mesh.Proxies, l.mesh.Gateways = l.now.proxies.out.all, l.now.proxies.out.gateways
}

// add assigns a workload to its proxy, which may be its own.
func (p *proxies) add(w *model.Workload) {
	node := p.all[w.Node]
	switch {
	case node == nil:
	case w.Sidecar:
		node.Sidecars = append(node.Sidecars, w)
		p.all[w.Proxy()] = &model.Proxy{Name: w.Proxy(), Workloads: []*model.Workload{w}, Builtin: node.Builtin}
	default:
		node.Workloads = append(node.Workloads, w)
	}
}

// proxyOf returns the proxy of a node. It is nil for a gateway with an invalid identity, which was refused when it
// registered.
func (l *linker) proxyOf(n snapshot.Node) *model.Proxy {
	p := &model.Proxy{Name: n.Name, Builtin: n.Builtin}
	if n.Role != snapshot.RoleGateway || n.Gateway == nil {
		return p
	}
	id, err := spiffe.Workload(l.in.mesh.trustDomain, spiffe.SystemNamespace, n.Gateway.ServiceAccount)
	if err != nil {
		return nil
	}
	p.Gateway = &model.Gateway{
		Identity: id, Inner: n.Gateway.Inner(), Outer: n.Gateway.Outer(), MaxConnections: n.Gateway.Connections(),
		Control: spiffe.Control(l.in.mesh.trustDomain), ControlAt: l.in.snapshot.ControlOf(n),
		Federation: l.now.federation,
	}
	return p
}

func sameProxies(a, b *model.Proxy) bool {
	return slices.Equal(a.Workloads, b.Workloads) && slices.Equal(a.Sidecars, b.Sidecars) &&
		sameGateways(a.Gateway, b.Gateway) && a.Builtin == b.Builtin
}

func sameGateways(a, b *model.Gateway) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Federation == b.Federation && reflect.DeepEqual(a, b)
}

func byID(a, b *model.Workload) int { return a.ID.Compare(b.ID) }

// federation returns what crosses each gateway. Every gateway serves every peer: a peer may call any of the mesh's
// outer addresses, and callers in the mesh and control planes use any gateway that answers. An import that nobody may
// call, or that no peer serves now, is left out.
func (l *linker) federation() *model.Federation {
	m := l.mesh
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
