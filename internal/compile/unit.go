package compile

import (
	"cmp"
	"maps"
	"reflect"
	"slices"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// part is the result of compiling one namespace on its own.
type part struct {
	services   *[]*service // oldest first
	byHost     map[string]*service
	workloads  *[]*model.Workload // without their destinations
	identities *[]caller          // of the workloads; sorted, without duplicates
	sidecar    *sidecar           // what the workloads see; nil for everything
	addressed  *[]addressed       // of the services
	endpoints  *map[model.EndpointSet][]model.Endpoint
	findings   []finding.Finding

	objects  objects // inputs of the part
	policies *translated
	admitted map[admission]*model.Policies
}

// service is a service as its namespace wants it. It may lose addresses to others, and an import may add a port.
type service struct {
	*model.Service
	age
	own       bool                // all its addresses were assigned by the mesh
	admission [][]*model.Policies // by port: the distinct policies of its servers
	resolved  []model.Endpoint    // for names that the callers' proxies resolve
}

// unit compiles one namespace.
type unit struct {
	inputs
	report
	namespace string
	part      *part
	before    *part

	served     []*service
	hosted     []*model.Workload
	closings   map[string][]closing // by namespace; "" is the whole mesh
	scopes     map[string]bool      // of closings
	backends   backends
	registered map[string]*model.Workload // workloads by name
	accounts   map[string]string          // SPIFFE IDs of WorkloadEntries, by service account; empty for none
	modes      map[*instance]modes
	mtls       peerAuthIndex
	authz      policyIndex
	sidecar    *sidecar // the oldest in the namespace
	granted    map[placeKey]place
}

func newUnit(namespace string, in inputs) *unit {
	u := &unit{
		inputs: in, namespace: namespace, closings: map[string][]closing{}, scopes: map[string]bool{},
		backends: backends{byLabel: map[label][]*instance{}}, modes: map[*instance]modes{},
		accounts: map[string]string{},
		part: &part{
			objects: in.objects, byHost: map[string]*service{}, admitted: map[admission]*model.Policies{},
		},
		before: &part{},
	}
	u.origins = u.objects
	u.authz = policyIndex{own: &translated{}, cache: map[string]model.Policies{}}
	if in.root != nil {
		for _, cl := range in.root.closings {
			u.close("", cl)
		}
	}
	return u
}

// unitOf compiles a namespace. Values equal to those in before, which may be nil, keep their pointers.
func unitOf(namespace string, in inputs, before *part) *part {
	u := newUnit(namespace, in)
	if before != nil {
		u.before = before
	}
	for _, o := range elements(in.closed) {
		u.shut(o)
	}
	if namespace != in.mesh.rootNamespace { // otherwise they are in root
		u.peerAuths()
		u.policies()
		u.sidecars()
	}
	u.instances()
	u.services()
	u.settleWorkloads()
	u.keep()
	return u.part
}

// keep replaces unchanged values by their predecessors.
func (u *unit) keep() {
	p, was := u.part, u.before
	p.findings = u.findings
	u.served = keepEach(elements(was.services), u.served, func(s *service) string { return s.Host })
	for _, s := range u.served {
		p.byHost[s.Host] = s
	}
	u.hosted = keepEach(elements(was.workloads), u.hosted, func(w *model.Workload) string { return w.ID.Name })
	p.services = keepList(was.services, u.served, same[*service])
	p.workloads = keepList(was.workloads, u.hosted, same[*model.Workload])
	p.addressed = was.addressed
	if p.services != was.services {
		p.addressed = keepList(was.addressed, addressedOf(u.served),
			func(a, b addressed) bool { return reflect.DeepEqual(a, b) })
	}
	p.sidecar = keep(was.sidecar, cmp.Or(u.sidecar, u.root.sidecar))
	p.identities = keepList(was.identities, identitiesOf(u.hosted, p.sidecar), same[caller])
	for set, eps := range *p.endpoints {
		slices.SortFunc(eps, compareEndpoints)
		if was.endpoints == nil {
			continue
		}
		if old := (*was.endpoints)[set]; len(old) > 0 && slices.Equal(old, eps) {
			(*p.endpoints)[set] = old
		}
	}
	if was.endpoints != nil && maps.EqualFunc(*was.endpoints, *p.endpoints, slices.Equal[[]model.Endpoint]) {
		p.endpoints = was.endpoints
	}
}

// guarded is report.guarded for this namespace.
func (u *unit) guarded(key snapshot.Key, work func()) { u.report.guarded(key, u.shut, work) }
