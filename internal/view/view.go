// Package view cuts a mesh down to what one proxy may know: its own workloads, what they may call, and for a gateway
// what crosses there. A proxy never learns of anything else.
package view

import (
	"cmp"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/spiffe"
)

// View is what one proxy may know.
type View struct {
	Proxy       *model.Proxy
	TrustDomain spiffe.TrustDomain
	Domain      string
	AllowAny    bool
	// CertificateTTL is how long the certificates of workloads are good.
	CertificateTTL time.Duration
	HandOver       bool
	// Gateways of the mesh: where imports are reached, and whose word on asserted callers is believed.
	Gateways Gateways
	// Roots by trust domain, PEM: only those that this proxy checks against.
	Roots map[string][]byte
	// Gateway is set for gateways only.
	Gateway *GatewayView
	// Workloads is the proxy's, with outbound destinations.
	Workloads []*model.Workload
	// DNSEndpoints of destinations that the proxy resolves by itself.
	DNSEndpoints map[model.EndpointSet][]model.Endpoint
	// Near are, by the shared form of an endpoint set, those who serve it on this very proxy and are called from it: such
	// calls are handed over inside the proxy. Sorted.
	Near map[model.EndpointSet][]model.WorkloadID
	// Sets are the endpoint sets that the proxy may subscribe to, sorted.
	Sets []model.EndpointSet
}

// Gateways of the mesh.
type Gateways struct {
	IDs []string // SPIFFE IDs, sorted
	Set model.EndpointSet
}

// GatewayView is what crosses at a gateway.
type GatewayView struct {
	*model.Gateway
	Peers      []*model.Peer // sorted by name
	Exports    []*model.Export
	Imports    []*model.Import // with at least one remote
	Invites    []model.Invite
	Bootstraps []model.Bootstrap
	ControlID  spiffe.ID // of the control plane
}

// GatewaySet is the endpoint set of the mesh's own gateways, for callers of imports.
var GatewaySet = model.EndpointSet{Host: "gateway." + spiffe.SystemNamespace, Port: agentapi.FederationEgress}

// For cuts the mesh down to what the proxy may know; nil when the mesh does not know the proxy.
func For(mesh *model.Mesh, proxy string) *View {
	p := mesh.Proxies[proxy]
	if p == nil {
		return nil
	}
	own := mesh.TrustDomain.Name()
	v := &View{
		Proxy: p, TrustDomain: mesh.TrustDomain, Domain: mesh.Domain, AllowAny: mesh.AllowAny, CertificateTTL: mesh.CertificateTTL, HandOver: mesh.HandOver,
		Gateways: Gateways{IDs: gatewayIDs(mesh), Set: GatewaySet},
		Roots:    map[string][]byte{own: mesh.Roots[own]},
	}
	if p.Gateway != nil {
		v.Gateway = gatewayView(mesh, p.Gateway)
		for _, peer := range v.Gateway.Peers {
			v.Roots[peer.TrustDomain.Name()] = mesh.Roots[peer.TrustDomain.Name()]
		}
	} else {
		v.Workloads = p.Workloads
		v.Near = v.near(mesh, p)
	}
	v.Sets = sets(v)
	v.DNSEndpoints = dnsEndpoints(mesh, v)
	return v
}

func gatewayIDs(mesh *model.Mesh) []string {
	var ids []string
	for _, p := range mesh.Proxies {
		if p.Gateway != nil {
			ids = append(ids, p.Gateway.Identity.String())
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func gatewayView(mesh *model.Mesh, g *model.Gateway) *GatewayView {
	gv := &GatewayView{
		Gateway: g, Exports: mesh.Exports, Invites: mesh.Invites, Bootstraps: mesh.Bootstraps, ControlID: mesh.Control,
	}
	for _, p := range mesh.Peers {
		gv.Peers = append(gv.Peers, p)
	}
	slices.SortFunc(gv.Peers, func(a, b *model.Peer) int { return cmp.Compare(a.Name, b.Name) })
	for _, i := range mesh.Imports {
		if len(i.Remotes) > 0 {
			gv.Imports = append(gv.Imports, i)
		}
	}
	return gv
}

// sets are the endpoint sets behind the destinations.
func sets(v *View) []model.EndpointSet {
	seen := map[model.EndpointSet]bool{}
	for _, w := range v.Workloads {
		for _, o := range w.Outbound {
			switch {
			case o.Import == nil || len(o.Import.Remotes) == 0 && o.Import.Local != nil:
				seen[v.SetOf(o)] = !o.Service.DNS
			case o.Import.Mixed():
				seen[o.Import.MixedSet()] = true
			case len(o.Import.Remotes) > 0:
				seen[v.Gateways.Set] = true
			}
		}
	}
	if v.Gateway != nil {
		for _, e := range v.Gateway.Exports {
			seen[e.Set()] = true
		}
		for _, i := range v.Gateway.Imports {
			seen[i.Set()] = len(i.Callers) > 0 && !i.Named()
		}
	}
	var out []model.EndpointSet
	for s, wanted := range seen {
		if wanted {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b model.EndpointSet) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Proxy, b.Proxy))
	})
	return out
}

func dnsEndpoints(mesh *model.Mesh, v *View) map[model.EndpointSet][]model.Endpoint {
	out := map[model.EndpointSet][]model.Endpoint{}
	for _, w := range v.Workloads {
		for _, o := range w.Outbound {
			if o.Service.DNS {
				set := model.EndpointSet{Host: o.Service.Host, Port: o.Port.Number}
				out[set] = mesh.Endpoints[set]
			}
		}
	}
	if v.Gateway != nil {
		for _, i := range v.Gateway.Imports {
			if i.Named() {
				out[i.Set()] = mesh.Endpoints[i.Set()]
			}
		}
	}
	return out
}
