package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/sni"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/vip"
	corev1 "k8s.io/api/core/v1"
)

// importPlan is what FederatedImports ask for, and what they add to existing services.
type importPlan struct {
	imports  []*model.Import             // sorted by host and port
	ports    map[string]*model.Port      // by host: a port added by an import
	services map[string][]*model.Service // by namespace: services that only an import defines
	ages     map[string]age              // of those services, by host
	findings []finding.Finding
}

// importer builds an importPlan.
type importer struct {
	report
	*linker
	plan *importPlan
}

func (l *linker) planImports() {
	from := []any{l.in.mesh, l.now.peers, l.now.verdicts}
	of := l.with(has[*v1alpha1.FederatedImport])
	for _, o := range of {
		from = append(from, o, l.parts[o.Name].services)
		for _, i := range snapshot.Of[*v1alpha1.FederatedImport](o) {
			from = append(from, l.in.snapshot.VIPs[model.ServiceHost(i.Name, i.Namespace, l.in.mesh.domain)])
		}
	}
	l.now.importPlan = l.before.importPlan.again(from, func() *importPlan {
		x := &importer{report{origins: l.origins}, l, &importPlan{
			ports: map[string]*model.Port{}, services: map[string][]*model.Service{}, ages: map[string]age{},
		}}
		for age, i := range oldestFirst[*v1alpha1.FederatedImport](of...) {
			x.report.guarded(age.key, nil, func() { x.add(age, i) })
		}
		slices.SortFunc(x.plan.imports, func(a, b *model.Import) int {
			return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
		})
		x.plan.imports = keepEach(l.was.Imports, x.plan.imports, func(i *model.Import) string { return i.Name })
		x.plan.findings = x.report.findings
		return x.plan
	})
	l.mesh.Imports = l.now.importPlan.out.imports
	l.findings = append(l.findings, l.now.importPlan.out.findings...)
}

// with returns the namespaces' objects for which some returns true.
func (l *linker) with(some func(objects) bool) (out []objects) {
	for _, ns := range l.in.sorted {
		if o := l.in.objects[ns]; some(o) {
			out = append(out, o)
		}
	}
	return out
}

// imported indexes the imports by the destinations that they control.
func (l *linker) imported() map[model.EndpointSet]*model.Import {
	out := make(map[model.EndpointSet]*model.Import, len(l.mesh.Imports))
	for _, i := range l.mesh.Imports {
		out[model.EndpointSet{Host: i.Host, Port: i.Port}] = i
	}
	return out
}

func (x *importer) callers(key snapshot.Key, i *v1alpha1.FederatedImport) []string {
	if len(i.Spec.Callers) == 0 {
		x.find(key, "ISM0070", "spec.callers", "no caller is listed, so nobody may call")
	}
	var out []string
	for n, v := range i.Spec.Callers {
		ns, sa, qualified := strings.Cut(v, "/")
		if !qualified {
			ns, sa = i.Namespace, v
		}
		id, err := spiffe.Workload(x.in.mesh.trustDomain, ns, sa)
		if err != nil {
			x.find(key, "ISM0071", fmt.Sprintf("spec.callers[%d]", n), fmt.Sprintf("%q names no identity: %v", v, err))
			continue
		}
		out = append(out, id.String())
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// remote returns a source of an import, or says in absent why it cannot serve now.
func (x *importer) remote(
	key snapshot.Key, i *v1alpha1.FederatedImport, n int, from v1alpha1.ImportFrom,
) (r model.Remote, absent string, ok bool) {
	field := fmt.Sprintf("spec.from[%d]", n)
	if !x.in.mesh.hasPeer(from.Peer) {
		x.find(key, "ISM0072", field+".peer", fmt.Sprintf("there is no peer %q yet; it serves nothing", from.Peer))
		return r, "there is no peer " + from.Peer + " yet", false
	}
	peer := x.mesh.Peers[from.Peer]
	if peer == nil || !peer.Live {
		return r, "peer " + from.Peer + " " + standing((*x.now.verdicts)[from.Peer]), false
	}
	r = model.Remote{
		Peer: peer, Alias: cmp.Or(from.Name, i.Name), Namespace: cmp.Or(from.Namespace, i.Namespace),
		Weight: weight(from.Weight), Priority: uint32(from.Priority),
	}
	r.SNI = sni.Export(r.Alias, r.Namespace, peer.KnownAs, peer.TrustDomain.Name())
	if !x.canBeNamed(key, field+".name", r.SNI) {
		return r, "its name at peer " + from.Peer + " is too long", false
	}
	return r, "", true
}

// standing tells a caller why nothing passes between the meshes.
func standing(r peerrules.Reason) string {
	switch r {
	case peerrules.Suspended:
		return "is suspended"
	case peerrules.Expired:
		return "has expired"
	case peerrules.Revoked:
		return "is revoked"
	case peerrules.Stale:
		return "has not been reached for too long"
	case peerrules.NoRoots:
		return "has not been met yet"
	}
	return "is not trusted"
}

func weight(w *int32) uint32 {
	if w == nil {
		return 1
	}
	return uint32(*w)
}

// local decides how a local Service of the same name takes part (with weight 0 it does not). It returns false if the
// import is invalid.
func (x *importer) local(
	key snapshot.Key, i *v1alpha1.FederatedImport, imp *model.Import, svc *model.Service,
) bool {
	var port *model.Port
	if svc != nil {
		port = portOf(svc, imp.Port)
	}
	service := snapshot.KeyFor[*corev1.Service](i.Namespace, i.Name)
	switch {
	case i.Spec.Local == nil:
		if port != nil {
			x.find(key, "ISM0073",
				"spec.local",
				fmt.Sprintf("%s has port %d too; its endpoints are not used while the import says nothing of them", service, imp.Port))
		}
	case port == nil:
		x.find(key, "ISM0074",
			"spec.local",
			fmt.Sprintf("there is no %s with port %d; only the peers serve", service, imp.Port))
	case port.Protocol != imp.Protocol:
		x.find(key, "ISM0075",
			"spec.protocol",
			fmt.Sprintf("the Service speaks %s and the import %s; the import is ignored", port.Protocol, imp.Protocol))
		return false
	case weight(i.Spec.Local.Weight) > 0:
		imp.Local = &model.LocalPart{Weight: weight(i.Spec.Local.Weight), Priority: uint32(i.Spec.Local.Priority)}
	}
	return true
}

func (x *importer) add(age age, i *v1alpha1.FederatedImport) {
	key, id := age.key, model.ServiceID{Namespace: i.Namespace, Name: i.Name}
	imp := &model.Import{
		ID: id, Name: i.Namespace + "/" + i.Name, Host: model.ServiceHost(i.Name, i.Namespace, x.in.mesh.domain),
		Port: uint16(i.Spec.Port), Protocol: model.ParseProtocol(cmp.Or(string(i.Spec.Protocol), "HTTP")),
		Callers: x.callers(key, i), Ref: x.ref(key),
	}
	for n, from := range i.Spec.From {
		r, absent, ok := x.remote(key, i, n, from)
		switch {
		case weight(from.Weight) == 0:
		case ok:
			imp.Remotes = append(imp.Remotes, r)
		default:
			imp.Absent = append(imp.Absent, absent)
		}
	}
	slices.SortStableFunc(imp.Remotes, func(a, b model.Remote) int { return cmp.Compare(a.Priority, b.Priority) })
	var svc *model.Service
	if local := x.parts[i.Namespace].byHost[imp.Host]; local != nil {
		if svc = local.Service; svc.ID != id {
			x.find(key, "ISM0076", "metadata.name",
				fmt.Sprintf("%s is already served by %s; the import is ignored", imp.Host, svc.Refs[0]))
			return
		}
	}
	if !x.local(key, i, imp, svc) {
		return
	}
	if svc == nil {
		own := x.in.snapshot.VIPs[imp.Host]
		svc = &model.Service{ID: id, Host: imp.Host, VIP: own, VIP6: vip.Six(own), Refs: []model.Ref{imp.Ref}}
		svc.Ports = append(svc.Ports, &model.Port{Number: imp.Port, Protocol: imp.Protocol})
		x.plan.services[i.Namespace] = append(x.plan.services[i.Namespace], keep(x.was.Services[id], svc))
		x.plan.ages[imp.Host] = age
	} else if portOf(svc, imp.Port) == nil {
		x.plan.ports[imp.Host] = &model.Port{Number: imp.Port, Protocol: imp.Protocol}
	}
	x.plan.imports = append(x.plan.imports, imp)
}
