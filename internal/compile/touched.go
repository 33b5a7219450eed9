package compile

import (
	"bytes"
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// touchedNamespaces compares two snapshots. Served are those of the touched namespaces in which only the place or the
// readiness of a server changed. ok is false when a change reaches beyond the namespaces it stands in.
func touchedNamespaces(old, snap *snapshot.Snapshot, root string) (touched, served map[string]bool, ok bool) {
	touched, moved := map[string]bool{}, map[string]bool{}
	if !touchObjects(old.Config.Objects, snap.Config.Objects, touched, moved) || !bytes.Equal(old.Roots, snap.Roots) ||
		!slices.EqualFunc(old.Config.Closed, snap.Config.Closed, snapshot.Closed.Equal) ||
		!slices.Equal(old.Invites, snap.Invites) || !slices.Equal(old.Bootstraps, snap.Bootstraps) ||
		!slices.Equal(old.SilentGateways, snap.SilentGateways) ||
		!slices.Equal(old.PeeringAddresses, snap.PeeringAddresses) || old.PeeringPort != snap.PeeringPort ||
		len(snapshot.Of[*v1alpha1.MeshPeer](snap.Config)) > 0 && !maps.EqualFunc(old.Peers, snap.Peers, samePeer) {
		return nil, nil, false
	}
	if !touchAddressed(old.VIPs, snap, touched) {
		return nil, nil, false
	}
	if !sameNodes(old.Registry, snap.Registry) {
		return nil, nil, false
	}
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
	domain := ".svc." + cmp.Or(snap.Config.Mesh().Spec.Domain, defaultDomain)
	for _, s := range snapshot.Of[*corev1.Service](snap.Config) {
		if fresh(s.Name + "." + s.Namespace + domain) {
			touched[s.Namespace] = true
		}
	}
	for _, e := range snapshot.Of[*networking.ServiceEntry](snap.Config) {
		if slices.ContainsFunc(e.Spec.Hosts, func(h string) bool { return fresh(strings.ToLower(strings.TrimSuffix(h, "."))) }) {
			touched[e.Namespace] = true
		}
	}
	return !slices.ContainsFunc(snapshot.Of[*v1alpha1.FederatedImport](snap.Config), func(i *v1alpha1.FederatedImport) bool {
		return fresh(i.Name + "." + i.Namespace + domain)
	})
}

// federates: what is exported or imported in a namespace is seen by the gateways too.
func federates(cfg *snapshot.Config, touched map[string]bool) bool {
	for _, e := range snapshot.Of[*v1alpha1.FederatedExport](cfg) {
		if touched[e.Namespace] {
			return true
		}
	}
	for _, i := range snapshot.Of[*v1alpha1.FederatedImport](cfg) {
		if touched[i.Namespace] {
			return true
		}
	}
	return false
}

// touchObjects notes the namespaces in which an object is another one, or written elsewhere, as far as its kind says that
// this reaches; false where it reaches further.
func touchObjects(before, now *snapshot.Objects, touched, moved map[string]bool) bool {
	for was, is := range now.Since(before) {
		key := cmp.Or(is, was).Key
		k, _ := kind.Named(key.Kind)
		switch {
		case k.Reach == kind.ReachMesh:
			return false
		case k.Reach == kind.ReachEndpoints && onlyMoved(was, is):
			moved[key.Namespace] = true
		default:
			touched[key.Namespace] = true
		}
	}
	return true
}

// onlyMoved says that an object stands for the same server at another address: the policies on it are those that were on
// it.
func onlyMoved(was, is *snapshot.Object) bool {
	if was == nil || is == nil || !was.Origin.Equal(is.Origin) {
		return false
	}
	x, entry := was.Value.(*networking.WorkloadEntry)
	if !entry {
		return false
	}
	y := is.Value.(*networking.WorkloadEntry)
	return maps.Equal(x.Spec.Labels, y.Spec.Labels) && maps.Equal(x.Spec.Ports, y.Spec.Ports) &&
		x.Spec.ServiceAccount == y.Spec.ServiceAccount
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
	out := *snap
	out.Config = &snapshot.Config{
		Closed: snap.Config.Closed,
		Objects: snap.Config.Objects.Part(append(sortedKeys(touched), root, ""), func(ns, name string) bool {
			k, _ := kind.Named(name)
			switch {
			case ns == "":
				return name == "Mesh" || name == "MeshPeer"
			case touched[ns]:
				return k.Reach != kind.ReachMesh
			default:
				return k.Security
			}
		}),
	}
	out.Registry = &snapshot.Registry{Nodes: snap.Registry.Nodes}
	for _, w := range snap.Registry.Workloads {
		if touched[w.Namespace] {
			out.Registry.Workloads = append(out.Registry.Workloads, w)
		}
	}
	return &out
}
