package compile

import (
	"cmp"
	"slices"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/wellknown"
)

// appendEndpoints appends an instance's endpoints. Its IPv4 and IPv6 addresses form one endpoint.
func (i *instance) appendEndpoints(all []model.Endpoint, port uint16, healthy bool) []model.Endpoint {
	var by model.WorkloadID
	if i.workload != nil {
		by = i.workload.ID
	}
	if i.host != "" {
		all = append(all, model.Endpoint{Host: i.host, Port: port, Healthy: healthy, Weight: i.weight})
	}
	start := len(all)
	all = model.AppendEndpoints(all, i.addrs, port)
	for n := range all[start:] {
		e := &all[start+n]
		e.Healthy, e.Weight, e.By = healthy, i.weight, by
	}
	return all
}

// compareEndpoints defines an order, so that equal sets encode to equal bytes.
func compareEndpoints(a, b model.Endpoint) int {
	return cmp.Or(a.Addr.Compare(b.Addr), a.Other.Compare(b.Other), cmp.Compare(a.Host, b.Host),
		cmp.Compare(a.Port, b.Port),
		cmp.Compare(a.Weight, b.Weight))
}

// gatewaySet identifies the mesh's own gateways, for callers of imports.
var gatewaySet = model.EndpointSet{Host: "gateway." + spiffe.SystemNamespace, Port: wellknown.FederationEgress}

// crossingEndpoints returns the endpoints of the mesh's gateways and of imports.
func (l *linker) crossingEndpoints() map[model.EndpointSet][]model.Endpoint {
	all := map[model.EndpointSet][]model.Endpoint{}
	if eps := l.gatewayEndpoints(); len(eps) > 0 {
		all[gatewaySet] = eps
	}
	for _, i := range l.mesh.Imports {
		if len(i.Remotes) > 0 {
			l.importEndpoints(all, i)
		}
	}
	return all
}

// importEndpoints adds the endpoint sets of an import. A service that the peer reports as not ready gets no calls. Each
// address of a peer's gateway is an endpoint of its own, in either IP version: Envoy health-checks each endpoint, so an
// unreachable one costs no call. Of an endpoint with two addresses Envoy would check only the first.
func (l *linker) importEndpoints(all map[model.EndpointSet][]model.Endpoint, i *model.Import) {
	toPeers := i.AtGateways()
	all[toPeers.Set] = toPeers.Endpoints(func(g model.Group) []model.Endpoint {
		r := i.Remotes[slices.IndexFunc(i.Remotes, func(r model.Remote) bool { return r.SNI == g.SNI })]
		eps := model.Gateways(r.Peer.Addresses)
		unready := l.in.snapshot.Peers[r.Peer.Name].Readiness.IsUnready(
			snapshot.OfferedName{Namespace: r.Namespace, Name: r.Alias})
		for k := range eps {
			eps[k].Weight, eps[k].Healthy = 1, !unready
		}
		return eps
	})
	if i.Local != nil {
		mixed := i.AtCallers(gatewaySet)
		all[mixed.Set] = mixed.Endpoints(func(g model.Group) []model.Endpoint {
			if g.Name == model.OwnEndpoints {
				return (*l.parts[i.ID.Namespace].endpoints)[i.Own()]
			}
			return all[gatewaySet]
		})
	}
}

// gatewayEndpoints returns the addresses at which callers of imports reach the mesh's gateways: those that answer or,
// if none does, all, since the control plane may be the one that is cut off. Sorted.
func (l *linker) gatewayEndpoints() (out []model.Endpoint) {
	silent := func(p *model.Proxy) bool { return slices.Contains(l.in.snapshot.SilentGateways, p.Name) }
	var all []*model.Proxy
	for _, p := range l.mesh.Proxies {
		if p.Gateway != nil {
			all = append(all, p)
		}
	}
	if slices.ContainsFunc(all, func(p *model.Proxy) bool { return !silent(p) }) {
		all = slices.DeleteFunc(all, silent)
	}
	for _, p := range all {
		for _, e := range model.EndpointsAt(p.Gateway.Inner, wellknown.FederationEgress) {
			e.Healthy, e.Weight = true, 1
			out = append(out, e)
		}
	}
	slices.SortFunc(out, compareEndpoints)
	return out
}
