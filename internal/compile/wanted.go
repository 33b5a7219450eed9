package compile

import (
	"cmp"
	"fmt"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// wanted is a host that an object of a namespace would serve.
type wanted struct {
	age
	ref   model.Ref
	host  string
	n     int // index in a ServiceEntry's list
	ports int
}

// placeKey identifies a wanted host within its namespace.
type placeKey struct {
	key snapshot.Key
	n   int
}

func (w wanted) placeKey() placeKey { return placeKey{w.key, w.n} }

// serviceKind is the kind of a Service, as its keys have it.
var serviceKind = snapshot.KeyFor[*corev1.Service]("", "").Kind

func (w wanted) isService() bool { return w.key.Kind == serviceKind }

// wantedBy returns the hosts that the objects of a namespace would serve: Services first, each kind oldest first.
func wantedBy(o objects, domain string) []wanted {
	var out []wanted
	r := report{origins: o}
	for age, s := range oldestFirst[*corev1.Service](o) {
		if s.Spec.Type == corev1.ServiceTypeExternalName {
			continue // a DNS alias (ExternalName) serves nothing
		}
		ports := 0
		for range meshPorts(s) {
			ports++
		}
		out = append(out, wanted{age, r.ref(age.key), model.ServiceHost(s.Name, s.Namespace, domain), 0, ports})
	}
	for age, se := range oldestFirst[*networking.ServiceEntry](o) {
		for n, host := range entryHosts(se) {
			out = append(out, wanted{age, r.ref(age.key), host, n, len(se.Spec.Ports)})
		}
	}
	return out
}

// settledNames records who gets which host.
type settledNames struct {
	refused map[string]map[int]bool   // by namespace: indices into its list
	reasons []finding.Finding         // why a ServiceEntry does not get a host
	crowded map[string][]snapshot.Key // by namespace: what exceeded its limit
	noRoom  []snapshot.Key            // what exceeded the mesh's limit
}

func (s *settledNames) isRefused(ns string, n int) bool { return s.refused[ns][n] }

// settleNames resolves name conflicts in the whole mesh: a name goes to the oldest claimant, Services before
// ServiceEntries.
func (g *gathered) settleNames(before made[*settledNames]) made[*settledNames] {
	from := []any{g.mesh, g.namespaces}
	for _, ns := range g.sorted {
		from = append(from, ns, g.wanted[ns])
		if o := g.objects[ns]; has[*v1alpha1.FederatedImport](o) {
			from = append(from, o)
		}
	}
	return before.again(from, g.settleNamesNow)
}

func (g *gathered) settleNamesNow() *settledNames {
	out := &settledNames{refused: map[string]map[int]bool{}, crowded: map[string][]snapshot.Key{}}
	type claim struct {
		*wanted
		place int
	}
	var all []claim
	for _, ns := range g.sorted {
		list := elements(g.wanted[ns])
		for i := range list {
			all = append(all, claim{&list[i], i})
		}
	}
	slices.SortFunc(all, func(a, b claim) int {
		if a.isService() != b.isService() {
			return cmp.Compare(a.key.Kind, b.key.Kind)
		}
		return cmp.Or(a.compare(b.age), cmp.Compare(a.n, b.n))
	})
	holders := make(map[string]*wanted, len(all))
	imports := g.importedHosts()
	ownership := hostOwnership{g.mesh.domain, elements(g.namespaces), func(ns, name string) bool {
		return holders[model.ServiceHost(name, ns, g.mesh.domain)] != nil
	}}
	room := room{used: map[string]int{}}
	for _, w := range all {
		ns := w.key.Namespace
		if !w.isService() {
			if r := w.refusal(holders, imports, ownership); r != nil {
				out.reasons = append(out.reasons, *r)
				out.refuse(ns, w.place)
				continue
			}
		}
		switch {
		case room.used[ns]+w.ports > maxNamespaceDestinations:
			out.crowded[ns] = append(out.crowded[ns], w.key)
			out.refuse(ns, w.place)
		case room.served+w.ports > maxMeshDestinations:
			out.noRoom = append(out.noRoom, w.key)
			out.refuse(ns, w.place)
		default:
			room.used[ns] += w.ports
			room.served += w.ports
			holders[w.host] = w.wanted
		}
	}
	return out
}

func (s *settledNames) refuse(ns string, n int) {
	if s.refused[ns] == nil {
		s.refused[ns] = map[int]bool{}
	}
	s.refused[ns][n] = true
}

// importedHost is a host that a FederatedImport asks for.
type importedHost struct {
	age
	ref model.Ref
}

func (g *gathered) importedHosts() map[string]importedHost {
	hosts := map[string]importedHost{}
	for _, o := range g.objects {
		r := report{origins: o}
		for age, i := range oldestFirst[*v1alpha1.FederatedImport](o) {
			hosts[model.ServiceHost(i.Name, i.Namespace, g.mesh.domain)] = importedHost{age, r.ref(age.key)}
		}
	}
	return hosts
}

// refusal says why a ServiceEntry does not get a host; nil if it does.
func (w *wanted) refusal(
	holders map[string]*wanted, imports map[string]importedHost, ownership hostOwnership,
) *finding.Finding {
	field := fmt.Sprintf("spec.hosts[%d]", w.n)
	if other := holders[w.host]; other != nil {
		return new(finding.New("ISM0022", w.key, field,
			fmt.Sprintf("host %s is already served by %s; this one is ignored", w.host, other.ref)))
	}
	if other, ok := imports[w.host]; ok && other.compare(w.age) < 0 && !other.ties(w.age) {
		return new(finding.New("ISM0022", w.key, field,
			fmt.Sprintf("host %s is already imported by %s; this one is ignored", w.host, other.ref)))
	}
	if message, remedy := ownership.fault(w.key.Namespace, w.host); message != "" {
		return new(finding.New("ISM0024", w.key, field, message, remedy))
	}
	return nil
}

// findings reports who did not get a name and, for each namespace and the mesh, the oldest object that had no room.
func (s *settledNames) findings() []finding.Finding {
	r := report{findings: slices.Clone(s.reasons)}
	for _, ns := range sortedKeys(s.crowded) {
		r.noRoom("ISM0209", "namespace "+ns, maxNamespaceDestinations, s.crowded[ns])
	}
	if len(s.noRoom) > 0 {
		r.noRoom("ISM0215", "the mesh", maxMeshDestinations, s.noRoom)
	}
	return r.findings
}
