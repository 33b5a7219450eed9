package compile

import (
	"cmp"
	"slices"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/spiffe"
)

// destination is a service that may be called, and by whom.
type destination struct {
	age
	service *model.Service
	ports   []destinationPort

	wanted *service // nil for one that is an import's alone
}

type destinationPort struct {
	outbound model.Outbound // but for what says so
	callers  []allowed      // sorted by identity

	port *model.Port   // of the service
	imp  *model.Import // nil for a service of this mesh
}

// allowed is an identity that may call, and what says so.
type allowed struct {
	id string
	by []model.Ref
}

// destinations of each namespace.
func (l *linker) destinations() {
	imported := l.imported()
	byNamespace := map[string][]*model.Import{}
	for _, i := range l.mesh.Imports {
		byNamespace[i.ID.Namespace] = append(byNamespace[i.ID.Namespace], i)
	}
	l.now.destinations = map[string]made[*[]*destination]{}
	for _, ns := range l.in.sorted {
		from := []any{l.now.services.of(ns), l.parts[ns].services, l.now.identities}
		for _, i := range byNamespace[ns] {
			from = append(from, i)
		}
		before := l.before.destinations[ns]
		l.now.destinations[ns] = before.again(from, func() *[]*destination {
			return l.destinationsOf(ns, imported, elements(before.out))
		})
	}
}

func (l *linker) destinationsOf(
	ns string, imported map[model.EndpointSet]*model.Import, before []*destination,
) *[]*destination {
	known := make(map[string]*destination, len(before))
	for _, d := range before {
		known[d.service.Host] = d
	}
	var out []*destination
	for _, svc := range *l.now.services.of(ns) {
		d := &destination{service: svc, wanted: l.parts[ns].byHost[svc.Host]}
		if d.wanted != nil {
			d.age = d.wanted.age
		} else {
			d.age = l.now.importPlan.out.ages[svc.Host]
		}
		was := known[svc.Host]
		asked := was != nil && was.wanted == d.wanted && l.before.identities == l.now.identities
		for n, port := range svc.Ports {
			p := destinationPort{port: port, imp: imported[model.EndpointSet{Host: svc.Host, Port: port.Number}]}
			var old destinationPort
			if was != nil && n < len(was.ports) {
				old = was.ports[n]
			}
			if alike := was != nil && was.service == svc && old.port == port && old.imp == p.imp; alike {
				p.outbound = old.outbound
			} else {
				p.outbound = outboundTo(svc, port, p.imp)
			}
			switch {
			case p.imp != nil:
				p.callers = l.importCallers(p.imp, svc)
			case asked && old.port == port && old.imp == nil:
				p.callers = old.callers
			default:
				p.callers = l.callersAt(d, n)
			}
			d.ports = append(d.ports, p)
		}
		if was != nil && was.equal(d) {
			d = was
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b *destination) int { return cmp.Compare(a.service.Host, b.service.Host) })
	return keepList(&before, out, same[*destination])
}

func (d *destination) equal(e *destination) bool {
	return d.age == e.age && d.service == e.service && d.wanted == e.wanted &&
		slices.EqualFunc(d.ports, e.ports, func(p, q destinationPort) bool {
			return p.port == q.port && p.imp == q.imp && slices.EqualFunc(p.callers, q.callers, allowed.equal)
		})
}

func (a allowed) equal(b allowed) bool { return a.id == b.id && slices.Equal(a.by, b.by) }

// outboundTo is a port as its callers find it.
func outboundTo(svc *model.Service, port *model.Port, imp *model.Import) model.Outbound {
	if imp == nil {
		return model.Outbound{Service: svc, Port: port, Route: model.ToService(svc, port)}
	}
	if imp.Local == nil { // who serves the port here does not matter, nor what they speak
		port = &model.Port{Number: port.Number, Protocol: imp.Protocol}
	}
	return model.Outbound{Service: svc, Port: port, Route: imp.RouteAtCallers(gatewaySet)}
}

// importCallers: an import's own list decides for an imported port, the servers' policies for any other. Whether
// anybody serves an import now is not asked: its callers find it under the same name and address, and are told why they
// have to wait.
func (l *linker) importCallers(imp *model.Import, svc *model.Service) []allowed {
	var out []allowed
	for _, id := range imp.Callers {
		i, known := slices.BinarySearch(l.callerIDs, id)
		if known {
			if c := elements(l.now.identities)[i]; !c.sidecar.shows(c.namespace, svc) {
				continue
			}
		}
		out = append(out, allowed{id, []model.Ref{imp.Ref}})
	}
	return out
}

// callersAt inverts the policies of those who serve a port into the identities of this mesh that may call it.
// It over-approximates: methods, paths, addresses and the like narrow a call at the server, not at the caller.
func (l *linker) callersAt(d *destination, port int) []allowed {
	visible := l.visible(d.service)
	if d.service.External {
		out := make([]allowed, len(visible))
		for i, id := range visible {
			out[i] = allowed{id, d.service.Refs}
		}
		return out
	}
	server := authz.Server{HTTP: d.service.Ports[port].Protocol.IsHTTP(), TrustDomain: l.mesh.TrustDomain.Name()}
	by := map[string][]model.Ref{}
	for _, ps := range d.wanted.admission[port] {
		for id, verdict := range server.Read(*ps).Callers(visible, authz.Request{}) {
			by[id] = append(by[id], verdict.Refs()...)
		}
	}
	out := make([]allowed, 0, len(by))
	for _, id := range sortedKeys(by) {
		refs := by[id]
		slices.Sort(refs)
		out = append(out, allowed{id, slices.Compact(refs)})
	}
	return out
}

// caller is an identity together with its parts, taken apart once.
type caller struct {
	id                        string
	namespace, serviceAccount string
	sidecar                   *sidecar // of its namespace
}

// identitiesOf workloads, sorted, without doubles; all of them have one Sidecar.
func identitiesOf(workloads []*model.Workload, sidecar *sidecar) []caller {
	var out []caller
	for _, w := range workloads {
		ns, sa, _ := spiffe.WorkloadParts(w.Identity)
		out = append(out, caller{w.Identity.String(), ns, sa, sidecar})
	}
	slices.SortFunc(out, func(a, b caller) int { return cmp.Compare(a.id, b.id) })
	return slices.Compact(out)
}

// visible are the identities that may see a service: exportTo says who, and the Sidecar of a caller's namespace. What
// is outside the mesh has no policies that could say more. Sorted.
func (l *linker) visible(svc *model.Service) []string {
	if svc.ExportTo == nil && !l.narrowed {
		return l.callerIDs
	}
	var out []string
	namespace, sees := "", false // one answer for all callers of a namespace, who follow one another
	for _, id := range elements(l.now.identities) {
		if id.namespace != namespace {
			namespace = id.namespace
			sees = (svc.ExportTo == nil || slices.Contains(svc.ExportTo, namespace)) && id.sidecar.shows(namespace, svc)
		}
		if sees {
			out = append(out, id.id)
		}
	}
	return out
}
