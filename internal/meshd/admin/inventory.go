package admin

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Access returns who may call whom, as the callers' proxies are configured.
func (a *Admin) Access(context.Context, *adminapi.Empty) (*adminapi.AccessResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	resp := &adminapi.AccessResponse{Edges: []adminapi.AccessEdge{}}
	for _, w := range p.Mesh.Workloads {
		resp.Edges = append(resp.Edges, calls(w)...)
	}
	resp.Edges = append(resp.Edges, peerCalls(p.Mesh)...)
	sortEdges(resp.Edges)
	return resp, nil
}

// peerCalls returns what callers at peers may call here.
func peerCalls(mesh *model.Mesh) []adminapi.AccessEdge {
	var out []adminapi.AccessEdge
	for _, c := range compile.PeerCalls(mesh) {
		out = append(out, adminapi.AccessEdge{
			From: "peer " + c.Peer + ": " + cmp.Or(c.Caller, "everybody"),
			To:   fmt.Sprintf("%s:%d", c.Export.Service.Host, c.Export.Port.Number), By: texts(c.By),
		})
	}
	return out
}

// calls returns the destinations that a workload may call.
func calls(w *model.Workload) []adminapi.AccessEdge {
	out := []adminapi.AccessEdge{}
	for _, o := range w.Outbound {
		out = append(out, adminapi.AccessEdge{
			From: w.ID.String(), To: fmt.Sprintf("%s:%d", o.Service.Host, o.Port.Number), By: texts(o.By),
		})
	}
	sortEdges(out)
	return out
}

func sortEdges(edges []adminapi.AccessEdge) {
	slices.SortFunc(edges, func(x, y adminapi.AccessEdge) int {
		return cmp.Or(cmp.Compare(x.From, y.From), cmp.Compare(x.To, y.To))
	})
}

// Inventory returns the services and workloads of the mesh.
func (a *Admin) Inventory(context.Context, *adminapi.Empty) (*adminapi.InventoryResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	out := inventory(p.Mesh, p.Snapshot.Registry, a.unready(p))
	markSilent(out, p.Snapshot.SilentNodes)
	return out, nil
}

// markSilent marks what is on silent nodes, whose readiness is unknown.
func markSilent(inv *adminapi.InventoryResponse, silent []snapshot.SilentNode) {
	isSilent := func(node string) bool {
		return slices.ContainsFunc(silent, func(n snapshot.SilentNode) bool { return n.Name == node })
	}
	for i := range inv.Workloads {
		if w := &inv.Workloads[i]; isSilent(w.Node) {
			w.Ready, w.Silent = false, true
		}
	}
	for _, s := range inv.Services {
		for _, p := range s.Ports {
			for i := range p.Endpoints {
				if e := &p.Endpoints[i]; isSilent(e.Node) {
					e.Ready, e.Silent = false, true
				}
			}
		}
	}
}

func inventory(
	mesh *model.Mesh, registry *snapshot.Registry, unready func(model.Remote) string,
) *adminapi.InventoryResponse {
	resp := &adminapi.InventoryResponse{Services: []adminapi.ServiceInfo{}, Workloads: []adminapi.WorkloadInfo{}}
	imports := map[model.EndpointSet]*model.Import{}
	for _, i := range mesh.Imports {
		imports[model.EndpointSet{Host: i.Host, Port: i.Port}] = i
	}
	callers := callersOf(mesh)
	for _, svc := range mesh.Services {
		resp.Services = append(resp.Services, inventoryService(mesh, svc, callers, imports, unready))
	}
	for _, e := range peerCalls(mesh) {
		for i := range resp.Services {
			for j := range resp.Services[i].Ports {
				if p := &resp.Services[i].Ports[j]; e.To == fmt.Sprintf("%s:%d", resp.Services[i].Host, p.Number) {
					p.Callers = append(p.Callers, e.From)
				}
			}
		}
	}
	slices.SortFunc(resp.Services, func(x, y adminapi.ServiceInfo) int { return cmp.Compare(x.Host, y.Host) })
	registered := map[model.WorkloadID]snapshot.Workload{}
	for _, w := range registry.Workloads {
		registered[model.WorkloadID{Namespace: w.Namespace, Name: w.Name}] = w
	}
	for id, w := range mesh.Workloads {
		resp.Workloads = append(resp.Workloads, inventoryWorkload(w, registered[id]))
	}
	slices.SortFunc(resp.Workloads, func(x, y adminapi.WorkloadInfo) int { return cmp.Compare(x.Key(), y.Key()) })
	return resp
}

// callersOf returns the callers of each destination, sorted.
func callersOf(mesh *model.Mesh) map[model.EndpointSet][]string {
	out := map[model.EndpointSet][]string{}
	for _, w := range mesh.Workloads {
		for _, o := range w.Outbound {
			out[o.Set()] = append(out[o.Set()], w.Identity.String())
		}
	}
	for set, ids := range out {
		slices.Sort(ids)
		out[set] = slices.Compact(ids)
	}
	return out
}

func inventoryService(
	mesh *model.Mesh, svc *model.Service, callers map[model.EndpointSet][]string,
	imports map[model.EndpointSet]*model.Import,
	unready func(model.Remote) string,
) adminapi.ServiceInfo {
	out := adminapi.ServiceInfo{
		Host: svc.Host, Namespace: svc.ID.Namespace, Name: svc.ID.Name, Addresses: serviceAddresses(svc),
		External: svc.External,
		ExportTo: svc.ExportTo, From: texts(svc.Refs),
	}
	for _, port := range svc.Ports {
		set := model.EndpointSet{Host: svc.Host, Port: port.Number}
		sp := adminapi.ServicePort{
			Number: port.Number, Protocol: port.Protocol.String(), MTLS: port.MTLS, Callers: slices.Clone(callers[set]),
		}
		i := imports[set]
		if i == nil || i.Local != nil {
			sp.Endpoints = inventoryEndpoints(mesh, set)
		}
		if i != nil {
			sp.Protocol, sp.Callers = i.Protocol.String(), i.Callers
			for _, r := range i.Remotes {
				sp.Peers = append(sp.Peers,
					adminapi.ServingPeer{
						Peer: r.Peer.Name, Name: r.SNI, Weight: r.Weight, Priority: r.Priority,
						Unready: unready(r),
					})
			}
		}
		out.Ports = append(out.Ports, sp)
	}
	return out
}

func serviceAddresses(svc *model.Service) []string {
	var out []string
	for _, a := range []netip.Addr{svc.VIP, svc.VIP6} {
		if a.IsValid() {
			out = append(out, a.String())
		}
	}
	for _, p := range svc.Prefixes {
		out = append(out, p.String())
	}
	return out
}

func inventoryEndpoints(mesh *model.Mesh, set model.EndpointSet) []adminapi.ServiceEndpoint {
	var out []adminapi.ServiceEndpoint
	for _, e := range mesh.Endpoints[set] {
		se := adminapi.ServiceEndpoint{Ready: e.Healthy, Address: place(cmp.Or(e.Host, e.Addr.String()), e.Port)}
		if e.Other.IsValid() {
			se.Other = place(e.Other.String(), e.Port)
		}
		if e.By != (model.WorkloadID{}) {
			se.Workload = e.By.String()
			if w := mesh.Workloads[e.By]; w != nil {
				se.Node = w.Node
			}
		}
		out = append(out, se)
	}
	return out
}

func place(host string, port uint16) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

func inventoryWorkload(w *model.Workload, registered snapshot.Workload) adminapi.WorkloadInfo {
	out := adminapi.WorkloadInfo{
		Namespace: w.ID.Namespace, Name: w.ID.Name, Identity: w.Identity.String(), Node: w.Node,
		Ready: registered.Ready,
		Mode:  w.Mode.String(), Calls: calls(w),
	}
	for _, key := range slices.Sorted(maps.Keys(registered.Labels)) {
		out.Labels = append(out.Labels, key+"="+registered.Labels[key])
	}
	for _, a := range w.Addrs {
		out.Addresses = append(out.Addresses, a.String())
	}
	for _, in := range w.Inbound {
		wp := adminapi.WorkloadPort{
			Number: in.Port, Protocol: in.Protocol.String(), Mode: in.Mode.String(), Hosts: in.Hosts, Default: "deny",
		}
		if in.Policies.DefaultAllow {
			wp.Default = "allow"
		}
		for _, p := range in.Policies.Deny {
			wp.Policies = append(wp.Policies, "DENY "+string(p.Ref))
		}
		for _, p := range in.Policies.Allow {
			wp.Policies = append(wp.Policies, "ALLOW "+string(p.Ref))
		}
		out.Ports = append(out.Ports, wp)
	}
	return out
}

func texts(refs []model.Ref) []string {
	out := make([]string, 0, len(refs))
	for _, r := range refs {
		out = append(out, string(r))
	}
	return out
}
