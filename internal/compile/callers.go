package compile

import (
	"cmp"
	"slices"

	"isthmus.dev/isthmus/internal/authz"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/spiffe"
)

// destination is a service with its callers.
type destination struct {
	age
	service *model.Service
	ports   []destinationPort

	wanted *service // nil for a service that only an import defines
}

type destinationPort struct {
	outbound model.Outbound // without By
	callers  []allowed      // sorted by identity
	open     bool           // any identity may be among them
	named    []string       // if not open: the candidates, sorted

	port *model.Port   // of the service
	imp  *model.Import // nil for a service of this mesh
}

// allowed is an identity that may call, and the objects that allow it.
type allowed struct {
	id string
	by []model.Ref
}

// destinations computes the destinations of each namespace.
func (l *linker) destinations() {
	imported := l.imported()
	byNamespace := map[string][]*model.Import{}
	for _, i := range l.mesh.Imports {
		byNamespace[i.ID.Namespace] = append(byNamespace[i.ID.Namespace], i)
	}
	l.now.destinations = map[string]made[*[]*destination]{}
	for _, ns := range l.in.sorted {
		from := []any{l.now.services.of(ns), l.parts[ns].services, l.now.identities.out}
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
		d := destination{service: svc, wanted: l.parts[ns].byHost[svc.Host]}
		if d.wanted != nil {
			d.age = d.wanted.age
		} else {
			d.age = l.now.importPlan.out.ages[svc.Host]
		}
		imports := func(port *model.Port) *model.Import {
			return imported[model.EndpointSet{Host: svc.Host, Port: port.Number}]
		}
		was := known[svc.Host]
		if was == nil {
			was = &destination{}
		} else if l.unchanged(was, d, imports) {
			out = append(out, was)
			continue
		}
		for n, port := range svc.Ports {
			var old destinationPort
			if n < len(was.ports) {
				old = was.ports[n]
			}
			d.ports = append(d.ports, l.destinationPort(d, n, imports(port), was, old))
		}
		if was.equal(d) {
			out = append(out, was)
		} else {
			out = append(out, &d)
		}
	}
	slices.SortFunc(out, func(a, b *destination) int { return cmp.Compare(a.service.Host, b.service.Host) })
	return keepList(&before, out, same[*destination])
}

// unchanged reports whether a destination is what it was: d, of which the ports are not worked out, and all that
// decides about those, are the same.
func (l *linker) unchanged(was *destination, d destination, imports func(*model.Port) *model.Import) bool {
	return was.age == d.age && was.service == d.service && was.wanted == d.wanted &&
		!slices.ContainsFunc(was.ports, func(p destinationPort) bool {
			return p.imp != imports(p.port) || p.concerns(l.changedIDs)
		})
}

// destinationPort computes the nth port of d. It reuses what old shares with it.
func (l *linker) destinationPort(
	d destination, n int, imp *model.Import, before *destination, old destinationPort,
) destinationPort {
	p := destinationPort{port: d.service.Ports[n], imp: imp}
	if alike := old.port == p.port && old.imp == imp; alike && before.service == d.service {
		p.outbound = old.outbound
	} else {
		p.outbound = outboundTo(d.service, p.port, imp)
	}
	switch {
	case old.port == p.port && old.imp == imp && before.wanted == d.wanted && !old.concerns(l.changedIDs):
		p.callers, p.open, p.named = old.callers, old.open, old.named
	case imp != nil:
		p.callers, p.named = l.importCallers(imp, d.service), slices.Sorted(slices.Values(imp.Callers))
	default:
		l.callersAt(d, n, &p)
	}
	return p
}

// concerns reports whether one of these sorted identities may be among the callers. If not, the policies need not be
// evaluated because of them.
func (p destinationPort) concerns(ids []string) bool {
	return p.open && len(ids) > 0 || slices.ContainsFunc(p.named, func(id string) bool {
		_, found := slices.BinarySearch(ids, id)
		return found
	})
}

func (d *destination) equal(e destination) bool {
	return d.age == e.age && d.service == e.service && d.wanted == e.wanted &&
		slices.EqualFunc(d.ports, e.ports, func(p, q destinationPort) bool {
			return p.port == q.port && p.imp == q.imp && slices.EqualFunc(p.callers, q.callers, allowed.equal)
		})
}

func (a allowed) equal(b allowed) bool { return a.id == b.id && slices.Equal(a.by, b.by) }

// outboundTo returns a port as its callers see it.
func outboundTo(svc *model.Service, port *model.Port, imp *model.Import) model.Outbound {
	if imp == nil {
		return model.Outbound{Service: svc, Port: port, Routes: model.RoutesTo(model.ToService(svc, port))}
	}
	if imp.Local == nil { // the local servers and their protocol do not matter
		port = &model.Port{Number: port.Number, Protocol: imp.Protocol}
	}
	d := imp.AtCallers(gatewaySet)
	d.Service, d.Port = svc, port
	return model.Outbound{Service: svc, Port: port, Routes: model.RoutesTo(d)}
}

// importCallers returns the callers of an imported port. The import's own list decides for that port; the servers'
// policies decide for the service's other ports. Whether anybody serves the import now does not matter: callers always
// get its name and address, and an explanation if nobody does.
func (l *linker) importCallers(imp *model.Import, svc *model.Service) []allowed {
	var out []allowed
	for _, id := range imp.Callers {
		all := l.now.identities.out
		if i, known := slices.BinarySearch(all.ids, id); known && !all.callers[i].sees(svc) {
			continue
		}
		out = append(out, allowed{id, []model.Ref{imp.Ref}})
	}
	return out
}

// callersAt inverts the policies of a port's servers into the identities of this mesh that may call it. It
// over-approximates: methods, paths, addresses and so on are checked at the server, not at the caller.
func (l *linker) callersAt(d destination, port int, into *destinationPort) {
	visible := l.now.identities.out.seeing(d.service)
	if into.open = d.service.External; into.open {
		into.callers = make([]allowed, len(visible))
		for i, id := range visible {
			into.callers[i] = allowed{id, d.service.Refs}
		}
		return
	}
	server := authz.Server{HTTP: d.service.Ports[port].Protocol.IsHTTP(), TrustDomain: l.mesh.TrustDomain.Name()}
	by := map[string][]model.Ref{}
	for _, ps := range d.wanted.admission[port] {
		read := server.Read(*ps)
		named, ok := read.Named()
		into.named, into.open = append(into.named, named...), into.open || !ok
		for id, verdict := range read.Callers(visible, authz.Request{}) {
			by[id] = append(by[id], verdict.Refs()...)
		}
	}
	slices.Sort(into.named)
	into.named = slices.Clip(slices.Compact(into.named))
	into.callers = make([]allowed, 0, len(by))
	for _, id := range sortedKeys(by) {
		refs := by[id]
		slices.Sort(refs)
		into.callers = append(into.callers, allowed{id, slices.Compact(refs)})
	}
}

// caller is a parsed identity.
type caller struct {
	id                        string
	namespace, serviceAccount string
	sidecar                   *sidecar // of its namespace
}

// identitiesOf returns the identities of workloads, sorted, without duplicates. They share one Sidecar.
func identitiesOf(workloads []*model.Workload, sidecar *sidecar) []caller {
	var out []caller
	for _, w := range workloads {
		ns, sa, _ := spiffe.WorkloadParts(w.Identity)
		out = append(out, caller{w.Identity.String(), ns, sa, sidecar})
	}
	slices.SortFunc(out, func(a, b caller) int { return cmp.Compare(a.id, b.id) })
	return slices.Compact(out)
}

// sees reports whether the Sidecar of its namespace, if any, shows it a service.
func (c caller) sees(svc *model.Service) bool { return c.sidecar.shows(c.namespace, svc) }

// identitySet holds the identities of the mesh's workloads.
type identitySet struct {
	callers  []caller
	ids      []string // of callers, sorted
	narrowed bool     // some of them have a Sidecar
}

func (l *linker) identities() {
	var from []any
	for _, ns := range l.in.sorted {
		from = append(from, l.parts[ns].identities)
	}
	before := l.before.identities.out
	l.now.identities = l.before.identities.again(from, func() *identitySet {
		now := &identitySet{}
		for _, ns := range l.in.sorted {
			now.callers = append(now.callers, elements(l.parts[ns].identities)...)
		}
		slices.SortFunc(now.callers, func(a, b caller) int { return cmp.Compare(a.id, b.id) })
		if before != nil && slices.Equal(before.callers, now.callers) {
			return before
		}
		for _, c := range now.callers {
			now.ids, now.narrowed = append(now.ids, c.id), now.narrowed || c.sidecar != nil
		}
		return now
	})
	l.changedIDs = l.now.identities.out.since(before)
}

// since returns the identities that were added, removed, or have a different Sidecar, sorted. before may be nil.
func (now *identitySet) since(before *identitySet) (ids []string) {
	if now == before || before == nil {
		return nil
	}
	was, is := before.callers, now.callers
	for len(was) > 0 || len(is) > 0 {
		switch {
		case len(is) == 0 || len(was) > 0 && was[0].id < is[0].id:
			ids, was = append(ids, was[0].id), was[1:]
		case len(was) == 0 || is[0].id < was[0].id:
			ids, is = append(ids, is[0].id), is[1:]
		default:
			if was[0] != is[0] {
				ids = append(ids, is[0].id)
			}
			was, is = was[1:], is[1:]
		}
	}
	return ids
}

// seeing returns the identities that see a service, according to its exportTo and the Sidecar of each caller's
// namespace. For external services nothing else decides. Sorted.
func (all *identitySet) seeing(svc *model.Service) []string {
	if svc.ExportTo == nil && !all.narrowed {
		return all.ids
	}
	var out []string
	namespace, sees := "", false // callers are sorted, so those of one namespace share an answer
	for _, c := range all.callers {
		if c.namespace != namespace {
			namespace = c.namespace
			sees = (svc.ExportTo == nil || slices.Contains(svc.ExportTo, namespace)) && c.sees(svc)
		}
		if sees {
			out = append(out, c.id)
		}
	}
	return out
}
