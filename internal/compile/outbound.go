package compile

import (
	"cmp"
	"maps"
	"slices"

	"isthmus.dev/isthmus/internal/model"
)

// calls are the destinations that each identity may call, and so may know of. If there are too many, the oldest count.
type calls struct {
	of   map[string][]model.Outbound // by identity; sorted, not empty
	left map[string]leftOut          // by identity: what it may call but is not told of
}

// callChange is the change for one identity.
type callChange struct {
	gone map[model.EndpointSet]bool
	come []model.Outbound
}

// outbound computes what each identity may call.
func (l *linker) outbound() {
	from := make([]any, 0, len(l.in.sorted))
	for _, ns := range l.in.sorted {
		from = append(from, l.now.destinations[ns].out)
	}
	l.now.calls = l.before.calls.again(from, func() *calls {
		before, known := l.before.calls.out, l.before.destinations
		if before == nil || len(before.left) > 0 {
			before, known = &calls{}, nil // what was left out may have room now
		}
		if changes, ok := callChanges(known, l.now.destinations); ok {
			if next, ok := before.with(changes); ok {
				return next
			}
		}
		return l.callsByAge()
	})
}

// callChanges compares destinations. It returns false if some identity has too many to be told of all.
func callChanges(before, now map[string]made[*[]*destination]) (map[string]*callChange, bool) {
	changes := map[string]*callChange{}
	most := 0
	of := func(id string) *callChange {
		if changes[id] == nil {
			changes[id] = &callChange{gone: map[model.EndpointSet]bool{}}
		}
		return changes[id]
	}
	gone := func(p destinationPort, a allowed) { of(a.id).gone[p.outbound.Set()] = true }
	come := func(p destinationPort, a allowed) {
		c := of(a.id)
		c.come = append(c.come, p.to(a))
		most = max(most, len(c.come))
	}
	namespaces := map[string]bool{}
	addKeys(namespaces, before)
	addKeys(namespaces, now)
	for ns := range namespaces {
		if before[ns].out == now[ns].out {
			continue
		}
		was := map[string]*destination{}
		for _, d := range elements(before[ns].out) {
			was[d.service.Host] = d
		}
		for _, d := range elements(now[ns].out) {
			if was[d.service.Host] != d {
				compareDestinations(was[d.service.Host], d, gone, come)
			}
			delete(was, d.service.Host)
			if most > maxWorkloadDestinations {
				return nil, false
			}
		}
		for _, d := range was {
			compareDestinations(d, nil, gone, come)
		}
	}
	return changes, true
}

// to returns the destination as told to one of its callers.
func (p destinationPort) to(a allowed) model.Outbound {
	o := p.outbound
	o.By = a.by
	return o
}

// compareDestinations reports which callers lose and which gain a port of a destination. Either may be nil.
func compareDestinations(was, now *destination, gone, come func(destinationPort, allowed)) {
	before := map[uint16]destinationPort{}
	if was != nil {
		for _, p := range was.ports {
			before[p.port.Number] = p
		}
	}
	if now != nil {
		for _, p := range now.ports {
			old, ok := before[p.port.Number]
			delete(before, p.port.Number)
			alike := ok && sameDestination(old.outbound, p.outbound)
			known := map[string]allowed{}
			for _, a := range old.callers {
				known[a.id] = a
			}
			for _, a := range p.callers {
				if o, ok := known[a.id]; ok && alike && o.equal(a) {
					delete(known, a.id)
					continue
				}
				come(p, a)
			}
			for _, a := range known {
				gone(old, a)
			}
		}
	}
	for _, p := range before {
		for _, a := range p.callers {
			gone(p, a)
		}
	}
}

// with returns calls after some changes. It returns false if an identity now has too many destinations.
func (c *calls) with(changes map[string]*callChange) (*calls, bool) {
	out := &calls{of: maps.Clone(c.of)}
	if out.of == nil {
		out.of = map[string][]model.Outbound{}
	}
	for id, change := range changes {
		list := make([]model.Outbound, 0, len(c.of[id])+len(change.come))
		for _, o := range c.of[id] {
			if !change.gone[o.Set()] {
				list = append(list, o)
			}
		}
		list = append(list, change.come...)
		if len(list) > maxWorkloadDestinations {
			return nil, false
		}
		out.tell(id, list)
	}
	return out, true
}

func (c *calls) tell(id string, list []model.Outbound) {
	if len(list) == 0 {
		delete(c.of, id)
		return
	}
	slices.SortFunc(list, func(a, b model.Outbound) int {
		return cmp.Or(cmp.Compare(a.Service.Host, b.Service.Host), cmp.Compare(a.Port.Number, b.Port.Number))
	})
	c.of[id] = list
}

// callsByAge gives each identity its oldest destinations, up to the limit.
func (l *linker) callsByAge() *calls {
	lists, left := map[string][]model.Outbound{}, map[string]leftOut{}
	var all []*destination
	for _, ns := range l.in.sorted {
		all = append(all, elements(l.now.destinations[ns].out)...)
	}
	for _, d := range oldest(all) {
		for _, p := range d.ports {
			for _, a := range p.callers {
				if len(lists[a.id]) < maxWorkloadDestinations {
					lists[a.id] = append(lists[a.id], p.to(a))
					continue
				}
				if left[a.id] == nil {
					left[a.id] = leftOut{}
				}
				left[a.id][d.service.ID.Namespace]++
			}
		}
	}
	out := &calls{of: map[string][]model.Outbound{}, left: left}
	for id, list := range lists {
		out.tell(id, list)
	}
	return out
}

// workloads adds to workloads what they may call.
func (l *linker) workloads() {
	from := []any{l.now.calls.out}
	for _, ns := range l.in.sorted {
		from = append(from, l.parts[ns].workloads)
	}
	l.now.limits = l.before.limits.again(from, l.limit)
	limited := l.now.limits.out.outbound
	l.now.hosted = map[string]made[*map[model.WorkloadID]*model.Workload]{}
	all := map[string]*map[model.WorkloadID]*model.Workload{}
	for _, ns := range l.in.sorted {
		before := l.before.hosted[ns]
		from := []any{l.parts[ns].workloads, l.now.calls.out, limited}
		l.now.hosted[ns] = before.again(from, func() *map[model.WorkloadID]*model.Workload {
			return keepMap(before.out, l.workloadsOf(ns, limited), same[*model.Workload])
		})
		all[ns] = l.now.hosted[ns].out
	}
	l.now.workloads = join(l.before.workloads, all)
	l.mesh.Workloads = l.now.workloads.all
	l.findings = append(l.findings, l.now.limits.out.left.findings()...)
}

func (l *linker) workloadsOf(ns string, limited *limitedOutbound) map[model.WorkloadID]*model.Workload {
	list, was, made := elements(l.parts[ns].workloads), l.before.workloads.of(ns), l.madeWorkloads(ns)
	out := make(map[model.WorkloadID]*model.Workload, len(list))
	for _, w := range list {
		outbound := l.now.calls.out.of[w.Identity.String()]
		if less, ok := limited.of(w.ID); ok {
			outbound = less
		}
		if made[w] && sameOutbound((*was)[w.ID].Outbound, outbound) {
			out[w.ID] = (*was)[w.ID]
			continue
		}
		changed := *w
		changed.Outbound = outbound
		out[w.ID] = &changed
	}
	return out
}

// madeWorkloads returns the workloads from which the previous mesh was made.
func (l *linker) madeWorkloads(ns string) map[*model.Workload]bool {
	out := map[*model.Workload]bool{}
	if was := l.partsBefore[ns]; was != nil {
		for _, w := range elements(was.workloads) {
			out[w] = true
		}
	}
	return out
}

func sameOutbound(a, b []model.Outbound) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.EqualFunc(a, b, func(x, y model.Outbound) bool {
		return sameDestination(x, y) && slices.Equal(x.By, y.By)
	}))
}

func sameDestination(a, b model.Outbound) bool {
	return a.Service == b.Service && a.Port == b.Port && slices.Equal(a.Routes, b.Routes)
}
