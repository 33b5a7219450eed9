package compile

import (
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// sources are the endpoint sets of imports.
func sources(c *compiler) {
	for _, i := range c.mesh.Imports {
		addSources(c.mesh.Endpoints, i, c.snap.Peers)
	}
}

// addSources puts the sets of one import beside those that they are made of.
func addSources(all map[model.EndpointSet][]model.Endpoint, i *model.Import, peers map[string]snapshot.PeerState) {
	if len(i.Remotes) == 0 {
		return
	}
	all[i.Set()] = i.Endpoints(func(r model.Remote) bool {
		return !peers[r.Peer.Name].Readiness.IsUnready(snapshot.OfferedName{Namespace: r.Namespace, Name: r.Alias})
	})
	if i.Mixed() {
		own := model.EndpointSet{Host: i.Local.Service.Host, Port: i.Local.Port.Number}
		all[i.MixedSet()] = i.MixedEndpoints(all[own], all[gatewaySet])
	}
}
