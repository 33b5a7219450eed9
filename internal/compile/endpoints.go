package compile

import (
	"cmp"
	"slices"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/wellknown"
)

// addEndpoints puts an instance behind a service port. Its IPv4 and its IPv6 address are one endpoint.
func (c *compiler) addEndpoints(set model.EndpointSet, i *instance, port uint16, healthy bool) {
	var by model.WorkloadID
	if i.workload != nil {
		by = i.workload.ID
	}
	if i.host != "" {
		c.mesh.Endpoints[set] = append(
			c.mesh.Endpoints[set],
			model.Endpoint{Host: i.host, Port: port, Healthy: healthy, Weight: i.weight},
		)
	}
	for _, e := range model.Places(i.addrs, port) {
		e.Healthy, e.Weight, e.By = healthy, i.weight, by
		c.mesh.Endpoints[set] = append(c.mesh.Endpoints[set], e)
	}
}

// endpoints sorts every set, so that equal sets are equal bytes.
func endpoints(c *compiler) {
	for _, eps := range c.mesh.Endpoints {
		slices.SortFunc(eps, func(a, b model.Endpoint) int {
			return cmp.Or(
				a.Addr.Compare(b.Addr),
				a.Other.Compare(b.Other),
				cmp.Compare(a.Host, b.Host),
				cmp.Compare(a.Port, b.Port),
				cmp.Compare(a.Weight, b.Weight),
			)
		})
	}
}

// gatewaySet are the mesh's own gateways, for callers of imports.
var gatewaySet = model.EndpointSet{Host: "gateway." + spiffe.SystemNamespace, Port: wellknown.FederationEgress}

// gatewayEndpoints are where callers of imports reach the mesh's gateways: at those that answer, or, where none does,
// at all of them, since it may be the control plane that is cut off.
func gatewayEndpoints(c *compiler) {
	silent := func(p *model.Proxy) bool { return slices.Contains(c.snap.SilentGateways, p.Name) }
	var all []*model.Proxy
	for _, p := range c.mesh.Proxies {
		if p.Gateway != nil {
			all = append(all, p)
		}
	}
	if slices.ContainsFunc(all, func(p *model.Proxy) bool { return !silent(p) }) {
		all = slices.DeleteFunc(all, silent)
	}
	for _, p := range all {
		for _, e := range model.Places(p.Gateway.Inner, wellknown.FederationEgress) {
			e.Healthy, e.Weight = true, 1
			c.mesh.Endpoints[gatewaySet] = append(c.mesh.Endpoints[gatewaySet], e)
		}
	}
}

// importEndpoints are the endpoint sets of imports.
func importEndpoints(c *compiler) {
	for _, i := range c.mesh.Imports {
		addImportEndpoints(c.mesh.Endpoints, i, c.snap.Peers)
	}
}

// addImportEndpoints puts the sets of one import beside those that they are made of. What a peer says is not ready gets
// nothing. Each address of a peer's gateway is an endpoint, of whichever IP version: their health is asked for, so that
// one that leads nowhere costs no call, while of an endpoint with two addresses Envoy would ask at the first alone.
func addImportEndpoints(
	all map[model.EndpointSet][]model.Endpoint,
	i *model.Import,
	peers map[string]snapshot.PeerState,
) {
	if len(i.Remotes) == 0 {
		return
	}
	toPeers := i.RouteAtGateways()
	all[toPeers.Set] = toPeers.Endpoints(func(d model.Destination) []model.Endpoint {
		r := i.Remotes[slices.IndexFunc(i.Remotes, func(r model.Remote) bool { return r.SNI == d.SNI })]
		eps := model.Gateways(r.Peer.Addresses)
		unready := peers[r.Peer.Name].Readiness.IsUnready(snapshot.OfferedName{Namespace: r.Namespace, Name: r.Alias})
		for k := range eps {
			eps[k].Weight, eps[k].Healthy = 1, !unready
		}
		return eps
	})
	if i.Local != nil {
		mixed := i.RouteAtCallers(gatewaySet)
		all[mixed.Set] = mixed.Endpoints(func(d model.Destination) []model.Endpoint {
			if d.Name == model.OwnEndpoints {
				return all[i.Own()]
			}
			return all[gatewaySet]
		})
	}
}
