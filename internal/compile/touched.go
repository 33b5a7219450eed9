package compile

import (
	"bytes"
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/snapshot"
)

// touchedNamespaces compares two snapshots. Files that did not change keep their objects, so that comparing pointers is
// enough. Served are those of them in which only the place or the readiness of a server changed. ok is false when a change
// reaches beyond the namespaces it stands in.
func touchedNamespaces(old, snap *snapshot.Snapshot, root string) (touched, served map[string]bool, ok bool) {
	a, b := old.Config, snap.Config
	if a.Mesh != b.Mesh || !sameList(a.MeshPeers, b.MeshPeers) || !sameList(a.FederatedExports, b.FederatedExports) ||
		!sameList(a.FederatedImports, b.FederatedImports) || !bytes.Equal(old.Roots, snap.Roots) ||
		!slices.EqualFunc(a.Closed, b.Closed, snapshot.Closed.Equal) || !slices.Equal(old.Invites, snap.Invites) ||
		!slices.Equal(old.Bootstraps, snap.Bootstraps) ||
		!slices.Equal(old.SilentGateways, snap.SilentGateways) || !slices.Equal(old.PeeringAddresses, snap.PeeringAddresses) || old.PeeringPort != snap.PeeringPort || len(a.MeshPeers) > 0 && !maps.EqualFunc(old.Peers, snap.Peers, samePeer) {
		return nil, nil, false
	}
	touched = b.Origins.Moved(a.Origins)
	differ(a.Namespaces, b.Namespaces, touched)
	differ(a.Services, b.Services, touched)
	differ(a.PeerAuthentications, b.PeerAuthentications, touched)
	differ(a.AuthorizationPolicies, b.AuthorizationPolicies, touched)
	differ(a.ServiceEntries, b.ServiceEntries, touched)
	if !touchAddressed(old.VIPs, snap, touched) {
		return nil, nil, false
	}
	if !sameNodes(old.Registry, snap.Registry) {
		return nil, nil, false
	}
	moved := map[string]bool{}
	touchEntries(a.WorkloadEntries, b.WorkloadEntries, touched, moved)
	touchWorkloads(old.Registry.Workloads, snap.Registry.Workloads, touched, moved)
	touchSilent(old.SilentNodes, snap, moved)
	served = map[string]bool{}
	for ns := range moved {
		if !touched[ns] {
			touched[ns], served[ns] = true, true
		}
	}
	return touched, served, !touched[root] && !touched[""]
}

// touchAddressed notes the namespaces of services that have a virtual address since; false when imports may have one.
func touchAddressed(old map[string]netip.Addr, snap *snapshot.Snapshot, touched map[string]bool) bool {
	if maps.Equal(old, snap.VIPs) {
		return true
	}
	fresh := func(host string) bool { return old[host] != snap.VIPs[host] }
	domain := ".svc." + cmp.Or(snap.Config.Mesh.Spec.Domain, defaultDomain)
	for _, s := range snap.Config.Services {
		if fresh(s.Name + "." + s.Namespace + domain) {
			touched[s.Namespace] = true
		}
	}
	for _, e := range snap.Config.ServiceEntries {
		if slices.ContainsFunc(e.Spec.Hosts, func(h string) bool { return fresh(strings.ToLower(strings.TrimSuffix(h, "."))) }) {
			touched[e.Namespace] = true
		}
	}
	return !slices.ContainsFunc(snap.Config.FederatedImports, func(i *v1alpha1.FederatedImport) bool {
		return fresh(i.Name + "." + i.Namespace + domain)
	})
}

// federates: what is exported or imported in a namespace is seen by the gateways too.
func federates(cfg *snapshot.Config, touched map[string]bool) bool {
	for _, e := range cfg.FederatedExports {
		if touched[e.Namespace] {
			return true
		}
	}
	for _, i := range cfg.FederatedImports {
		if touched[i.Namespace] {
			return true
		}
	}
	return false
}

func sameList[T comparable](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// differ notes the namespaces of objects that stand in only one of two lists.
func differ[T interface {
	comparable
	metav1.Object
}](a, b []T, touched map[string]bool) {
	if sameList(a, b) {
		return
	}
	known := make(map[T]bool, len(a))
	for _, o := range a {
		known[o] = true
	}
	for _, o := range b {
		if !known[o] {
			touched[o.GetNamespace()] = true
		}
		delete(known, o)
	}
	for o := range known {
		touched[o.GetNamespace()] = true
	}
}

// touchEntries notes where WorkloadEntries changed. One that keeps its labels, ports and account only moved: the policies on
// it are those that were on it.
func touchEntries(a, b []*networking.WorkloadEntry, touched, moved map[string]bool) {
	if sameList(a, b) {
		return
	}
	known := make(map[*networking.WorkloadEntry]bool, len(a))
	for _, e := range a {
		known[e] = true
	}
	fresh := map[string]*networking.WorkloadEntry{}
	for _, e := range b {
		if !known[e] {
			fresh[e.Namespace+"/"+e.Name] = e
		}
		delete(known, e)
	}
	for e := range known { // replaced or gone
		next := fresh[e.Namespace+"/"+e.Name]
		delete(fresh, e.Namespace+"/"+e.Name)
		if next != nil && maps.Equal(e.Spec.Labels, next.Spec.Labels) && maps.Equal(e.Spec.Ports, next.Spec.Ports) && e.Spec.ServiceAccount == next.Spec.ServiceAccount {
			moved[e.Namespace] = true
		} else {
			touched[e.Namespace] = true
		}
	}
	for _, e := range fresh {
		touched[e.Namespace] = true
	}
}

func samePeer(x, y snapshot.PeerState) bool {
	return bytes.Equal(x.Roots, y.Roots) && x.BundleTime.Equal(y.BundleTime) && x.BundleSequence == y.BundleSequence &&
		x.Suspended == y.Suspended && x.Revoked == y.Revoked
}

func sameNodes(a, b *snapshot.Registry) bool {
	return a != nil && b != nil && slices.EqualFunc(a.Nodes, b.Nodes, func(x, y snapshot.Node) bool {
		return x.Name == y.Name && x.Role == y.Role && x.Reached == y.Reached && (x.Gateway == y.Gateway || x.Gateway != nil && y.Gateway != nil && *x.Gateway == *y.Gateway)
	})
}

// touchWorkloads notes the namespaces of workloads that came, went or changed.
func touchWorkloads(a, b []snapshot.Workload, touched, moved map[string]bool) {
	if sameWorkloadList(a, b) {
		return
	}
	type key struct{ node, namespace, name string }
	known := make(map[key]*snapshot.Workload, len(a))
	for i := range a {
		known[key{a[i].Node, a[i].Namespace, a[i].Name}] = &a[i]
	}
	for i := range b {
		k := key{b[i].Node, b[i].Namespace, b[i].Name}
		switch was := known[k]; {
		case was == nil || !sameWorkload(*was, b[i]):
			touched[b[i].Namespace] = true
		case was.Ready != b[i].Ready:
			moved[b[i].Namespace] = true
		}
		delete(known, k)
	}
	for k := range known {
		touched[k.namespace] = true
	}
}

// touchSilent notes the namespaces of what is served by nodes that have fallen silent, or are heard again.
func touchSilent(old []snapshot.SilentNode, snap *snapshot.Snapshot, moved map[string]bool) {
	if slices.Equal(old, snap.SilentNodes) {
		return
	}
	changed := map[string]bool{}
	for _, n := range old {
		changed[n.Name] = true
	}
	for _, n := range snap.SilentNodes {
		if changed[n.Name] {
			delete(changed, n.Name)
		} else {
			changed[n.Name] = true
		}
	}
	for _, w := range snap.Registry.Workloads {
		if changed[w.Node] {
			moved[w.Namespace] = true
		}
	}
}

func sameWorkloadList(a, b []snapshot.Workload) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func sameWorkload(x, y snapshot.Workload) bool {
	return x.ServiceAccount == y.ServiceAccount && x.Netns == y.Netns && x.Sidecar == y.Sidecar && maps.Equal(x.Labels, y.Labels) &&
		slices.Equal(x.Addresses, y.Addresses) && slices.Equal(x.Ports, y.Ports)
}

// onlyNamespaces is the part of a snapshot that decides what the touched namespaces mean: their own objects, and the
// policies of the root namespace.
func onlyNamespaces(snap *snapshot.Snapshot, touched map[string]bool, root string) *snapshot.Snapshot {
	cfg, policies := snap.Config, maps.Clone(touched)
	policies[root] = true
	out := *snap
	out.Config = &snapshot.Config{
		Mesh: cfg.Mesh, MeshPeers: cfg.MeshPeers, Closed: cfg.Closed, Origins: cfg.Origins,
		Services: within(cfg.Services, touched), ServiceEntries: within(cfg.ServiceEntries, touched), WorkloadEntries: within(cfg.WorkloadEntries, touched),
		PeerAuthentications: within(cfg.PeerAuthentications, policies), AuthorizationPolicies: within(cfg.AuthorizationPolicies, policies),
	}
	out.Registry = &snapshot.Registry{Nodes: snap.Registry.Nodes}
	for _, w := range snap.Registry.Workloads {
		if touched[w.Namespace] {
			out.Registry.Workloads = append(out.Registry.Workloads, w)
		}
	}
	return &out
}

// within is the part of a list, sorted by namespace as all are, that stands in some namespaces.
func within[T metav1.Object](list []T, namespaces map[string]bool) []T {
	var out []T
	for _, ns := range slices.Sorted(maps.Keys(namespaces)) {
		at, _ := slices.BinarySearchFunc(list, ns, func(o T, ns string) int { return strings.Compare(o.GetNamespace(), ns) })
		for ; at < len(list) && list[at].GetNamespace() == ns; at++ {
			out = append(out, list[at])
		}
	}
	return out
}
