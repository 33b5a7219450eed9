package compile

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

const defaultCertificateTTL = time.Hour

// linked holds the intermediate results of link. All of it is immutable.
type linked struct {
	identities   made[*identitySet]
	peers        *map[string]*model.Peer
	verdicts     *map[string]peerrules.Reason
	importPlan   made[*importPlan]
	federation   *model.Federation
	exports      made[*exports]
	addresses    made[*addresses]
	served       map[string]made[*map[model.ServiceID]*model.Service] // by namespace
	services     *joined[model.ServiceID, *model.Service]
	destinations map[string]made[*[]*destination] // by namespace; sorted by host
	calls        made[*calls]
	limits       made[*limits]
	hosted       map[string]made[*map[model.WorkloadID]*model.Workload] // by namespace
	workloads    *joined[model.WorkloadID, *model.Workload]
	proxies      made[*proxies]
	endpoints    *joined[model.EndpointSet, []model.Endpoint]
	unready      map[string]made[[]finding.Finding] // by namespace
}

// linker combines parts into a mesh.
type linker struct {
	report
	in                 *gathered
	parts, partsBefore map[string]*part
	before, now        *linked
	was, mesh          *model.Mesh // of them; the former has nothing in it where there was none
	changedIDs         []string    // identities that came, went, or see something else, sorted
}

// linkSteps in order: each reads what earlier ones produced.
var linkSteps = []func(*linker){
	(*linker).posture, (*linker).identities, (*linker).peers, (*linker).planImports, (*linker).settleAddresses,
	(*linker).services, (*linker).exports, (*linker).destinations, (*linker).outbound,
	(*linker).workloads, (*linker).proxies, (*linker).endpoints, (*linker).findUnready,
}

// link combines the parts in now into a mesh.
func link(before, now *Compiled) (*model.Mesh, *linked, []finding.Finding) {
	l := &linker{
		report: report{origins: now.gathered.config}, in: now.gathered,
		parts: partsOf(now.units), partsBefore: partsOf(before.units), before: before.link, now: &linked{},
		was: before.Mesh,
	}
	if l.was == nil {
		l.was = &model.Mesh{}
	}
	for _, step := range linkSteps {
		step(l)
	}
	return l.mesh, l.now, l.findings
}

func partsOf(units map[string]*unitOutcome) map[string]*part {
	out := make(map[string]*part, len(units))
	for ns, u := range units {
		out[ns] = u.part
	}
	return out
}

func (l *linker) posture() {
	m, in, snap := l.in.config.Mesh(), l.in.mesh, l.in.snapshot
	l.mesh = &model.Mesh{
		Name: m.Name, TrustDomain: in.trustDomain, Domain: in.domain, RootNamespace: in.rootNamespace,
		CertificateTTL: defaultCertificateTTL,
		AllowAny:       m.Spec.Outbound == v1alpha1.OutboundAllowAny,
		HandOver:       m.Spec.SameNode != v1alpha1.SameNodeNetwork,
		Namespaces:     elements(l.in.namespaces),
		Roots:          map[string][]byte{in.trustDomain.Name(): snap.Roots},
	}
	if m.Spec.CertificateTTL != nil {
		l.mesh.CertificateTTL = m.Spec.CertificateTTL.Duration
	}
	for _, i := range snap.Invites {
		l.mesh.Invites = append(l.mesh.Invites, model.Invite{ID: i.ID, Peer: i.Peer})
	}
	for _, b := range snap.Bootstraps {
		l.mesh.Bootstraps = append(l.mesh.Bootstraps, model.Bootstrap{ID: b.ID, Address: b.Address})
	}
}

// settleAddresses of all services, with the ports that imports add to them.
func (l *linker) settleAddresses() {
	from := []any{l.now.importPlan.out}
	for _, ns := range l.in.sorted {
		from = append(from, l.parts[ns].addressed)
	}
	l.now.addresses = l.before.addresses.again(from, func() *addresses {
		var all []*addressed
		for _, ns := range l.in.sorted {
			for _, a := range elements(l.parts[ns].addressed) {
				if port := l.now.importPlan.out.ports[a.host]; port != nil {
					a.ports = append(slices.Clip(a.ports), port.Number)
				}
				all = append(all, &a)
			}
		}
		return settleAddresses(all)
	})
	l.findings = append(l.findings, l.now.addresses.out.findings...)
}

// services builds the services in their final form: without addresses lost to others, and with ports that imports add.
// Services that only imports define are added.
func (l *linker) services() {
	l.now.served = map[string]made[*map[model.ServiceID]*model.Service]{}
	all := map[string]*map[model.ServiceID]*model.Service{}
	for _, ns := range l.in.sorted {
		before := l.before.served[ns]
		from := []any{l.parts[ns].services, l.now.importPlan.out, l.now.addresses.out}
		l.now.served[ns] = before.again(from, func() *map[model.ServiceID]*model.Service {
			return keepMap(before.out, l.servicesOf(ns), same[*model.Service])
		})
		all[ns] = l.now.served[ns].out
	}
	l.now.services = join(l.before.services, all)
	l.mesh.Services = l.now.services.all
}

func (l *linker) servicesOf(ns string) map[model.ServiceID]*model.Service {
	plan, settled := l.now.importPlan.out, l.now.addresses.out.reached
	out := map[model.ServiceID]*model.Service{}
	for _, s := range elements(l.parts[ns].services) {
		out[s.ID] = s.Service
		at, moved := settled[s.Host]
		if port := plan.ports[s.Host]; moved || port != nil {
			changed := *s.Service
			if moved {
				changed.VIP, changed.VIP6, changed.Prefixes = at.vip, at.vip6, at.prefixes
			}
			if port != nil {
				changed.Ports = append(slices.Clip(changed.Ports), port)
			}
			out[s.ID] = keep(l.was.Services[s.ID], &changed)
		}
	}
	for _, svc := range plan.services[ns] {
		out[svc.ID] = svc
	}
	return out
}

// endpoints collects the endpoints of services, of the mesh's gateways and of imports.
func (l *linker) endpoints() {
	all := map[string]*map[model.EndpointSet][]model.Endpoint{}
	for _, ns := range l.in.sorted {
		all[ns] = l.parts[ns].endpoints
	}
	all[""] = keepMap(l.before.endpoints.of(""), l.crossingEndpoints(), slices.Equal[[]model.Endpoint])
	l.now.endpoints = join(l.before.endpoints, all)
	l.mesh.Endpoints = l.now.endpoints.all
}

// joined is a map merged from those of all namespaces, which have disjoint keys.
type joined[K comparable, V any] struct {
	in  map[string]*map[K]V
	all map[K]V
}

// of returns the map of a namespace, or nil.
func (j *joined[K, V]) of(namespace string) *map[K]V {
	if j == nil {
		return nil
	}
	return j.in[namespace]
}

// join returns before if nothing has changed, else a copy in which only changed namespaces are replaced. before may be
// nil.
func join[K comparable, V any](before *joined[K, V], in map[string]*map[K]V) *joined[K, V] {
	if before == nil {
		before = &joined[K, V]{}
	} else if maps.Equal(before.in, in) {
		return before
	}
	out := &joined[K, V]{in, maps.Clone(before.all)}
	if out.all == nil {
		out.all = map[K]V{}
	}
	for ns, was := range before.in {
		if in[ns] != was {
			for k := range *was {
				delete(out.all, k)
			}
		}
	}
	for ns, now := range in {
		if before.in[ns] != now {
			maps.Copy(out.all, *now)
		}
	}
	return out
}

// changed returns the keys of namespaces that may have changed since before, which may be nil.
func (j *joined[K, V]) changed(before *joined[K, V]) map[K]bool {
	out := map[K]bool{}
	add := func(in, other map[string]*map[K]V) {
		for ns, m := range in {
			if m != other[ns] {
				for k := range *m {
					out[k] = true
				}
			}
		}
	}
	if before == nil {
		before = &joined[K, V]{}
	}
	add(j.in, before.in)
	add(before.in, j.in)
	return out
}

// keepMap is keep for a map, whose values are compared with equal.
func keepMap[K comparable, V any](before *map[K]V, now map[K]V, equal func(a, b V) bool) *map[K]V {
	if before != nil && maps.EqualFunc(*before, now, equal) {
		return before
	}
	return &now
}

// keepEach applies keep to each element of a list and to the list. Elements correspond if they have the same name.
func keepEach[T any, N comparable](before, now []*T, name func(*T) N) []*T {
	known := make(map[N]*T, len(before))
	for _, e := range before {
		known[name(e)] = e
	}
	for i, e := range now {
		now[i] = keep(known[name(e)], e)
	}
	if slices.Equal(before, now) {
		return before
	}
	return now
}

// peers collects the peers that may be used now, and their roots.
func (l *linker) peers() {
	verdicts := peerrules.All(l.in.snapshot, l.in.mesh.trustDomain.Name())
	peers, reasons := map[string]*model.Peer{}, map[string]peerrules.Reason{}
	for _, p := range snapshot.Of[*v1alpha1.MeshPeer](l.in.config) {
		key, v := snapshot.KeyOf(p), verdicts[p.Name]
		reasons[p.Name] = v.Reason
		l.guarded(key, nil, func() {
			if peer := l.peer(key, p, v); peer != nil {
				peers[p.Name] = keep(l.was.Peers[p.Name], peer)
				l.mesh.Roots[peer.TrustDomain.Name()] = v.Roots
			}
		})
	}
	l.now.peers = keepMap(l.before.peers, peers, same[*model.Peer])
	l.now.verdicts = keepMap(l.before.verdicts, reasons, same[peerrules.Reason])
	l.mesh.Peers = *l.now.peers
	if reflect.DeepEqual(l.mesh.Roots, l.was.Roots) {
		l.mesh.Roots = l.was.Roots
	}
}
