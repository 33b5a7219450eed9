package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// ownDomain is Istio's name for the mesh's own trust domain.
const ownDomain = "cluster.local"

// meshInputs is what each namespace needs to know of the mesh.
type meshInputs struct {
	trustDomain   spiffe.TrustDomain
	domain        string // DNS suffix
	rootNamespace string
	mode          model.MTLSMode // default without PeerAuthentication
	allow         bool           // default without AuthorizationPolicy
	aliases       []string       // trust domains that mean this mesh
	peers         []peerDomain   // as configured: policies do not depend on a peer's state
}

type peerDomain struct{ name, trustDomain string }

// inputs is everything that a part is compiled from. Equal (==) inputs give the same part.
type inputs struct {
	mesh      *meshInputs
	root      *rootPolicies
	objects   objects
	workloads *[]registered
	closed    *[]snapshot.Closed
	wanted    *[]wanted
	places    *[]place // for each wanted host, in the same order
}

// registered is a workload registered by a node.
type registered struct {
	snapshot.Workload
	silent bool // its node is silent
}

func (r registered) equal(s registered) bool {
	return r.silent == s.silent && r.Workload.Equal(s.Workload)
}

// gathered is a snapshot divided by namespace. Unchanged values keep their pointers.
type gathered struct {
	snapshot   *snapshot.Snapshot
	config     *snapshot.Config
	mesh       *meshInputs
	root       *rootPolicies
	sorted     []string // the namespaces that are units
	objects    map[string]objects
	workloads  map[string]*[]registered
	closed     map[string]*[]snapshot.Closed
	wanted     map[string]*[]wanted
	nodes      *[]snapshot.Node
	control    *[]netip.AddrPort // where gateways reach the control plane
	namespaces *[]string         // known namespaces: those written, and those with a destination or caller
}

// gather returns nil and a finding if there is no Mesh.
func gather(before *gathered, snap *snapshot.Snapshot) (*gathered, []finding.Finding) {
	cfg := snap.Config
	if cfg.Mesh() == nil {
		return nil, []finding.Finding{
			finding.New("ISM0001", kind.Key{}, "", "no Mesh object is configured, so nothing is served"),
		}
	}
	mesh, findings := posture(cfg)
	if mesh == nil {
		return nil, findings
	}
	g := &gathered{snapshot: snap, config: cfg, mesh: keep(before.mesh, mesh)}
	g.objects = objectsByNamespace(cfg)
	g.workloads = workloadsByNamespace(before, snap)
	g.closed = closedByNamespace(before.closed, cfg)
	g.root = g.rootPolicies(before)
	g.wanted = map[string]*[]wanted{}
	for ns, o := range g.objects {
		if g.mesh == before.mesh && before.objects[ns] == o {
			g.wanted[ns] = before.wanted[ns]
		} else {
			g.wanted[ns] = keepList(before.wanted[ns], wantedBy(o, g.mesh.domain), same[wanted])
		}
	}
	units := map[string]bool{}
	addKeys(units, g.objects)
	addKeys(units, g.workloads)
	addKeys(units, g.closed)
	delete(units, "")
	g.sorted = sortedKeys(units)
	if snap.Registry != nil {
		g.nodes = keepList(before.nodes, snap.Registry.Nodes, same[snapshot.Node])
	}
	control := append(slices.Clip(snap.PeeringAddresses), netip.AddrPortFrom(netip.Addr{}, snap.PeeringPort))
	g.control = keepList(before.control, control, same[netip.AddrPort])
	g.namespaces = keepList(before.namespaces, g.knownNamespaces(), same[string])
	return g, nil
}

func addKeys[V any](to map[string]bool, m map[string]V) {
	for k := range m {
		to[k] = true
	}
}

func posture(cfg *snapshot.Config) (*meshInputs, []finding.Finding) {
	m := cfg.Mesh()
	td, err := spiffe.ParseTrustDomain(m.Spec.TrustDomain)
	if err != nil {
		r := report{origins: cfg}
		r.find(snapshot.KeyOf(m), "ISM0002", "spec.trustDomain",
			fmt.Sprintf("%q is no SPIFFE trust domain: %v", m.Spec.TrustDomain, err))
		return nil, r.findings
	}
	in := &meshInputs{
		trustDomain: td, domain: cmp.Or(m.Spec.Domain, model.DefaultDomain),
		rootNamespace: cmp.Or(m.Spec.RootNamespace, spiffe.SystemNamespace),
		mode:          mode(string(m.Spec.MTLS), model.Strict), allow: m.Spec.DefaultAction == v1alpha1.DefaultAllow,
		aliases: m.Spec.TrustDomainAliases,
	}
	for _, p := range snapshot.Of[*v1alpha1.MeshPeer](cfg) {
		in.peers = append(in.peers, peerDomain{p.Name, p.Spec.TrustDomain})
	}
	return in, nil
}

func (m *meshInputs) isOwnDomain(td string) bool {
	return td == ownDomain || td == m.trustDomain.Name() || slices.Contains(m.aliases, td)
}

// peerOf returns the name of the configured peer with that trust domain.
func (m *meshInputs) peerOf(td string) string {
	for _, p := range m.peers {
		if p.trustDomain == td && td != m.trustDomain.Name() {
			return p.name
		}
	}
	return ""
}

func (m *meshInputs) hasPeer(name string) bool {
	return slices.ContainsFunc(m.peers, func(p peerDomain) bool { return p.name == name })
}

// knownNamespaces returns them sorted.
func (g *gathered) knownNamespaces() []string {
	seen := map[string]bool{}
	for _, n := range snapshot.Of[*corev1.Namespace](g.config) {
		seen[n.Name] = true
	}
	for ns, o := range g.objects {
		if has[*corev1.Service](o) || has[*v1alpha1.FederatedImport](o) {
			seen[ns] = true
		}
	}
	for ns := range g.workloads {
		seen[ns] = true
	}
	return sortedKeys(seen)
}

// workloadsByNamespace copies the workloads of those namespaces only in which one is not as it was.
func workloadsByNamespace(before *gathered, snap *snapshot.Snapshot) map[string]*[]registered {
	if snap.Registry == nil {
		return nil
	}
	was := before.snapshot
	if was != nil && was.Registry == snap.Registry && slices.Equal(was.SilentNodes, snap.SilentNodes) {
		return before.workloads
	}
	silent := map[string]bool{}
	for _, n := range snap.SilentNodes {
		silent[n.Name] = true
	}
	count, changed := map[string]int{}, map[string]bool{}
	for _, w := range snap.Registry.Workloads {
		was, n := elements(before.workloads[w.Namespace]), count[w.Namespace]
		count[w.Namespace]++
		if n >= len(was) || !was[n].equal(registered{w, silent[w.Node]}) {
			changed[w.Namespace] = true
		}
	}
	out, lists := map[string]*[]registered{}, map[string]*[]registered{}
	for ns, n := range count {
		if out[ns] = before.workloads[ns]; changed[ns] || n != len(*out[ns]) {
			lists[ns] = new(make([]registered, 0, n))
			out[ns] = lists[ns]
		}
	}
	for _, w := range snap.Registry.Workloads {
		if list := lists[w.Namespace]; list != nil {
			*list = append(*list, registered{w, silent[w.Node]})
		}
	}
	return out
}

// closedByNamespace groups closed objects by namespace. "" holds those that close the whole mesh.
func closedByNamespace(before map[string]*[]snapshot.Closed, cfg *snapshot.Config) map[string]*[]snapshot.Closed {
	lists := map[string][]snapshot.Closed{}
	for _, o := range cfg.Closed {
		lists[o.Key.Namespace] = append(lists[o.Key.Namespace], o)
	}
	return keepLists(before, lists, snapshot.Closed.Equal)
}

func keepLists[T any](before map[string]*[]T, now map[string][]T, equal func(a, b T) bool) map[string]*[]T {
	out := make(map[string]*[]T, len(now))
	for ns, list := range now {
		out[ns] = keepList(before[ns], list, equal)
	}
	return out
}

// findings returns the findings about inputs of the whole mesh.
func (g *gathered) findings() []finding.Finding {
	return slices.Concat(g.root.findings, reportClosed(g.config.Closed, g.mesh.rootNamespace))
}

// unitOutcome is a part and its inputs.
type unitOutcome struct {
	inputs
	part *part
}

// units compiles the namespaces whose inputs have changed.
func (g *gathered) units(old *Compiled, names *settledNames) map[string]*unitOutcome {
	before := old.units
	placed := old.names.out == names && sameMap(old.gathered.snapshot.VIPs, g.snapshot.VIPs)
	out := make(map[string]*unitOutcome, len(g.sorted))
	for _, ns := range g.sorted {
		was := before[ns]
		if was == nil {
			was = &unitOutcome{}
		}
		in := inputs{
			mesh: g.mesh, root: g.root, objects: g.objects[ns], workloads: g.workloads[ns], closed: g.closed[ns],
			wanted: g.wanted[ns], places: was.places,
		}
		if !placed || in.wanted != was.wanted {
			in.places = keepList(was.places, g.places(ns, names), same[place])
		}
		if out[ns] = was; in != was.inputs {
			out[ns] = &unitOutcome{in, unitOf(ns, in, was.part)}
		}
	}
	return out
}

// sameMap reports whether two maps are identical.
func sameMap[K comparable, V any](a, b map[K]V) bool {
	return reflect.ValueOf(a).UnsafePointer() == reflect.ValueOf(b).UnsafePointer()
}

// place is the mesh's decision about a wanted host.
type place struct {
	vip     netip.Addr // IPv4, assigned by the mesh
	refused bool
}

func (g *gathered) places(ns string, names *settledNames) []place {
	wanted := elements(g.wanted[ns])
	out := make([]place, len(wanted))
	for i, w := range wanted {
		out[i] = place{g.snapshot.VIPs[w.host], names.isRefused(ns, i)}
	}
	return out
}

// rootPolicies are the root namespace's policies for all namespaces.
type rootPolicies struct {
	policies  selectors[selectedPolicy]
	peerAuths []peerAuth // in force: one, or more of one age
	closings  []closing
	sidecar   *sidecar // for namespaces that have none
	findings  []finding.Finding
}

func (g *gathered) rootPolicies(before *gathered) *rootPolicies {
	ns := g.mesh.rootNamespace
	if before.root != nil && g.mesh == before.mesh && g.objects[ns] == before.objects[ns] &&
		g.closed[ns] == before.closed[ns] && g.closed[""] == before.closed[""] {
		return before.root
	}
	u := newUnit(ns, inputs{mesh: g.mesh, objects: g.objects[ns], closed: g.closed[ns]})
	for _, o := range slices.Concat(elements(g.closed[""]), elements(g.closed[ns])) {
		u.shut(o)
	}
	u.peerAuths()
	u.policies()
	u.sidecars()
	now := &rootPolicies{
		policies: u.authz.own.policies, peerAuths: u.mtls.namespace, closings: u.closings[""], sidecar: u.sidecar,
		findings: u.findings,
	}
	if before.root != nil && reflect.DeepEqual(before.root, now) {
		return before.root
	}
	return now
}
