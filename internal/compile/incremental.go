package compile

import (
	"maps"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Endpoints is the short way from one snapshot to the next when nothing changed but where things are served: the addresses
// of WorkloadEntries, and which workloads are ready. It costs what the touched namespaces hold, not what the mesh holds.
// ok is false when anything else changed; Mesh must then compile anew.
func Endpoints(before *model.Mesh, old, snap *snapshot.Snapshot) (mesh *model.Mesh, ok bool) {
	touched, ok := touchedNamespaces(old, snap)
	if !ok {
		return nil, false
	}
	c := &compiler{snap: snap, cfg: onlyNamespaces(snap.Config, touched)}
	c.snap = &snapshot.Snapshot{Time: snap.Time, Config: c.cfg, Registry: registryOf(snap.Registry, touched), Roots: snap.Roots, VIPs: snap.VIPs}
	for _, step := range []func(*compiler){posture, instances, peerAuths, services, endpoints} {
		step(c)
	}
	if len(c.findings) > 0 || !sameServers(before, c.mesh) {
		return nil, false
	}
	out := *before
	out.Endpoints = maps.Clone(before.Endpoints)
	for _, svc := range c.mesh.Services {
		for _, p := range svc.Ports {
			set := model.EndpointSet{Host: svc.Host, Port: p.Number}
			if eps, served := c.mesh.Endpoints[set]; served {
				out.Endpoints[set] = eps
			} else {
				delete(out.Endpoints, set)
			}
		}
	}
	return &out, true
}

// touchedNamespaces compares two snapshots. Files that did not change keep their objects, so that comparing pointers is enough.
func touchedNamespaces(old, snap *snapshot.Snapshot) (map[string]bool, bool) {
	a, b := old.Config, snap.Config
	if a.Mesh != b.Mesh || !slices.Equal(a.MeshPeers, b.MeshPeers) || !slices.Equal(a.FederatedExports, b.FederatedExports) ||
		!slices.Equal(a.FederatedImports, b.FederatedImports) || !slices.Equal(a.Namespaces, b.Namespaces) || !slices.Equal(a.Services, b.Services) ||
		!slices.Equal(a.PeerAuthentications, b.PeerAuthentications) || !slices.Equal(a.AuthorizationPolicies, b.AuthorizationPolicies) ||
		!slices.Equal(a.ServiceEntries, b.ServiceEntries) || !slices.Equal(a.Findings, b.Findings) || string(old.Roots) != string(snap.Roots) ||
		!slices.Equal(old.Invites, snap.Invites) || !slices.Equal(old.Bootstraps, snap.Bootstraps) || len(a.MeshPeers) > 0 && !samePeers(old.Peers, snap.Peers) {
		return nil, false
	}
	touched := map[string]bool{}
	known := make(map[*networking.WorkloadEntry]bool, len(a.WorkloadEntries))
	for _, we := range a.WorkloadEntries {
		known[we] = true
	}
	for _, we := range b.WorkloadEntries {
		if !known[we] {
			touched[we.Namespace] = true
		}
		delete(known, we)
	}
	for we := range known {
		touched[we.Namespace] = true // gone
	}
	return touched, sameButReady(old.Registry, snap.Registry, touched) && len(touched) > 0
}

func samePeers(a, b map[string]snapshot.PeerState) bool {
	return maps.EqualFunc(a, b, func(x, y snapshot.PeerState) bool {
		return string(x.Roots) == string(y.Roots) && x.BundleTime.Equal(y.BundleTime) && x.Suspended == y.Suspended && x.Revoked == y.Revoked && x.Catalogue == y.Catalogue
	})
}

// sameButReady says whether two registries differ in nothing but the readiness of workloads, and notes where.
func sameButReady(a, b *snapshot.Registry, touched map[string]bool) bool {
	if a == nil || b == nil || !slices.EqualFunc(a.Nodes, b.Nodes, func(x, y snapshot.Node) bool {
		return x.Name == y.Name && x.Role == y.Role && (x.Gateway == y.Gateway || x.Gateway != nil && y.Gateway != nil && *x.Gateway == *y.Gateway)
	}) {
		return false
	}
	return slices.EqualFunc(a.Workloads, b.Workloads, func(x, y snapshot.Workload) bool {
		if x.Ready != y.Ready {
			touched[x.Namespace] = true
		}
		return x.Name == y.Name && x.Namespace == y.Namespace && x.ServiceAccount == y.ServiceAccount && x.Node == y.Node && x.Netns == y.Netns &&
			maps.Equal(x.Labels, y.Labels) && slices.Equal(x.Addresses, y.Addresses) && slices.Equal(x.Ports, y.Ports)
	})
}

// onlyNamespaces keeps what decides where things are served there.
func onlyNamespaces(cfg *snapshot.Config, touched map[string]bool) *snapshot.Config {
	out := &snapshot.Config{Mesh: cfg.Mesh, Origins: cfg.Origins, PeerAuthentications: cfg.PeerAuthentications}
	for _, s := range cfg.Services {
		if touched[s.Namespace] {
			out.Services = append(out.Services, s)
		}
	}
	for _, s := range cfg.ServiceEntries {
		if touched[s.Namespace] {
			out.ServiceEntries = append(out.ServiceEntries, s)
		}
	}
	for _, w := range cfg.WorkloadEntries {
		if touched[w.Namespace] {
			out.WorkloadEntries = append(out.WorkloadEntries, w)
		}
	}
	return out
}

func registryOf(r *snapshot.Registry, touched map[string]bool) *snapshot.Registry {
	out := &snapshot.Registry{}
	for _, w := range r.Workloads {
		if touched[w.Namespace] {
			out.Workloads = append(out.Workloads, w)
		}
	}
	return out
}

// sameServers says whether the identities behind every port are as they were: callers check them, so they are more than
// a matter of endpoints.
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
