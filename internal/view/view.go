// Package view reduces a mesh to what one proxy may know: its own workloads, what they may call and, for a gateway,
// what crosses its boundaries. A proxy never learns anything else.
package view

import (
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/spiffe"
)

// View is what one proxy may know.
type View struct {
	Proxy *model.Proxy
	// Builtin is the version of the built-in parts of Envoy's configuration that the proxy has from its agent.
	Builtin     string
	TrustDomain spiffe.TrustDomain
	Domain      string
	AllowAny    bool
	// CertificateTTL is the lifetime of workload certificates.
	CertificateTTL time.Duration
	HandOver       bool
	// Gateways are the SPIFFE IDs of the mesh's gateways, sorted. They serve imports and may assert the identity of a
	// peer's caller.
	Gateways []string
	// Roots are PEM root certificates by trust domain, only those that this proxy verifies with.
	Roots map[string][]byte
	// Gateway is nil for nodes.
	Gateway *model.Gateway
	// Workloads are the proxy's workloads with their outbound destinations.
	Workloads []*model.Workload
	// Resolved are the endpoints of the destinations that the proxy itself resolves by DNS.
	Resolved map[model.EndpointSet][]model.Endpoint
	// Local lists, by the shared form of an endpoint set, the workloads of this proxy that serve it and are called from
	// this proxy. Such calls are handed over inside the proxy. Sorted.
	Local map[model.EndpointSet][]model.WorkloadID
	// Sets are the endpoint sets to which the proxy may subscribe, sorted.
	Sets []model.EndpointSet
}

// For returns the view of one proxy, or nil if the mesh does not know the proxy.
func For(mesh *model.Mesh, proxy string) *View {
	p := mesh.Proxies[proxy]
	if p == nil {
		return nil
	}
	v := &View{
		Proxy: p, Builtin: p.Builtin, TrustDomain: mesh.TrustDomain, Domain: mesh.Domain, AllowAny: mesh.AllowAny,
		CertificateTTL: mesh.CertificateTTL, HandOver: mesh.HandOver, Gateways: mesh.Gateways,
		Roots:   map[string][]byte{},
		Gateway: p.Gateway, Workloads: p.Workloads,
	}
	v.trust(mesh, mesh.TrustDomain)
	if g := p.Gateway; g != nil && g.Federation != nil {
		for _, peer := range g.Federation.Peers {
			v.trust(mesh, peer.TrustDomain)
		}
	}
	v.Local = v.localServers()
	v.endpoints(mesh)
	return v
}

func (v *View) trust(mesh *model.Mesh, td spiffe.TrustDomain) {
	v.Roots[td.Name()] = mesh.Roots[td.Name()]
}

// endpoints collects the endpoints of all routes and exports: sets to subscribe to, and endpoints that the proxy
// resolves.
func (v *View) endpoints(mesh *model.Mesh) {
	v.Resolved = map[model.EndpointSet][]model.Endpoint{}
	sets := map[model.EndpointSet]bool{}
	add := func(d *model.Destination, set model.EndpointSet) {
		switch {
		case len(d.Groups) == 0:
		case d.Resolved:
			v.Resolved[set] = mesh.Endpoints[set]
		default:
			sets[set] = true
		}
	}
	for _, w := range v.Workloads {
		for _, o := range w.Outbound {
			for _, d := range o.Destinations() {
				add(d, v.SetOf(d))
			}
		}
	}
	if v.Gateway != nil && v.Gateway.Federation != nil {
		for _, e := range v.Gateway.Federation.Exports {
			sets[e.Set()] = true
		}
		for _, i := range v.Gateway.Federation.Imports {
			d := i.AtGateways()
			add(d, d.Set)
		}
	}
	for s := range sets {
		v.Sets = append(v.Sets, s)
	}
	slices.SortFunc(v.Sets, model.EndpointSet.Compare)
}
