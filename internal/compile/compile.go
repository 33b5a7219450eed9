// Package compile turns what was written and registered into what it means: snapshot in, mesh and findings out.
// It is pure: no I/O, no clock, same input, same output.
//
// Every namespace is a unit. unitOf makes a part of what stands in it: services, workloads, policies, endpoints and the
// findings on them. link puts the parts together: who gets a name or an address that two want, who may call whom, what
// crosses to peers, which proxy serves which workload.
//
// Values are never written once they are made, and one that says the same as its predecessor is the predecessor (keep).
// So "the same" is the same pointer everywhere: a part is made again only when its inputs differ, and a step of the
// link only when what it reads does. Next hands the last outcome to the same functions that Mesh calls without one;
// there is no second way to compile. A step that must look at the whole mesh (names, addresses) reads the little that
// it needs from each part, so that it rests while that little stays the same.
//
// A kind whose objects are felt in other namespaces takes one of two ways:
//
//   - A unit may not look at another namespace. What it has to know of one stands in its inputs, as a value of its own:
//     rootPolicies are the root namespace's policies, places is which of the names that it wants it gets. The traffic
//     rules of another namespace's Service (DestinationRule), or a VirtualService's delegates, would be such values:
//     each namespace offers them from its objects alone, a step like names settles who gets which, and a unit whose
//     share stays the same is not made again.
//   - What concerns a pair of a caller and a destination is a matter of the link: exportTo and the Sidecar of a
//     caller's namespace are looked at when callers are worked out (visible).
package compile

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Compiled is a mesh together with what it was compiled from.
type Compiled struct {
	Snapshot *snapshot.Snapshot
	Mesh     *model.Mesh       // nil when the configuration means none
	Findings []finding.Finding // in no order; Known sorts
	// OnlyEndpoints: the mesh before differs in nothing but where things are served.
	OnlyEndpoints bool

	gathered *gathered
	units    map[string]*unitOutcome // by namespace
	names    made[*settledNames]
	link     *linked
}

// Mesh compiles a snapshot. Without a Mesh object it returns nil and a finding that says so.
func Mesh(snap *snapshot.Snapshot) (*model.Mesh, []finding.Finding) {
	c := Next(nil, snap)
	finding.Sort(c.Findings)
	return c.Mesh, c.Findings
}

// Next is Mesh, with what was compiled before at hand: it costs what has changed since, and a few passes over pointers.
// The outcome is always that of Mesh. Whatever is the same in both has the same pointer. Before may be nil.
func Next(before *Compiled, snap *snapshot.Snapshot) *Compiled {
	if before == nil || before.Mesh == nil {
		before = &Compiled{gathered: &gathered{}, link: &linked{}}
	}
	g, findings := gather(before.gathered, snap)
	if g == nil {
		return &Compiled{Snapshot: snap, Findings: findings}
	}
	c := &Compiled{Snapshot: snap, gathered: g}
	c.names = g.settleNames(before.names)
	c.units = g.units(before, c.names.out)
	c.Mesh, c.link, findings = link(before, c)
	c.Findings = slices.Concat(g.findings(), c.names.out.findings(), findings)
	for _, ns := range g.sorted {
		c.Findings = append(c.Findings, c.units[ns].part.findings...)
	}
	c.OnlyEndpoints = before.Mesh != nil && c.onlyEndpointsDiffer(before)
	return c
}

// onlyEndpointsDiffer costs little, since the meshes share what is the same.
func (c *Compiled) onlyEndpointsDiffer(before *Compiled) bool {
	if c.link.services != before.link.services || c.link.workloads != before.link.workloads ||
		!maps.Equal(c.Mesh.Proxies, before.Mesh.Proxies) {
		return false // they may be equal and differ in what is behind them
	}
	a, b := *before.Mesh, *c.Mesh
	a.Endpoints, b.Endpoints = nil, nil
	return reflect.DeepEqual(a, b) && !slices.ContainsFunc(c.Mesh.Imports, func(i *model.Import) bool {
		r := i.RouteAtGateways() // where host names are among the endpoints, the gateways are told them with the route
		return r.Resolved && !slices.Equal(before.Mesh.Endpoints[r.Set], c.Mesh.Endpoints[r.Set])
	})
}

// ChangedEndpoints are the sets that are not as they were before, which may be nil. The cost is in the namespaces where
// something has changed.
func (c *Compiled) ChangedEndpoints(before *Compiled) []model.EndpointSet {
	if before == nil || before.Mesh == nil {
		return slices.Collect(maps.Keys(c.Mesh.Endpoints))
	}
	var out []model.EndpointSet
	for set := range c.link.endpoints.changed(before.link.endpoints) {
		was, had := before.Mesh.Endpoints[set]
		if is, has := c.Mesh.Endpoints[set]; had != has || !slices.Equal(was, is) {
			out = append(out, set)
		}
	}
	return out
}

// made is what a step made, and what from: pointers and other values that == compares.
type made[T any] struct {
	from []any
	out  T
}

// again makes it anew, unless it would be made from the same.
func (m made[T]) again(from []any, make func() T) made[T] {
	if m.from != nil && slices.Equal(m.from, from) {
		return m
	}
	return made[T]{from, make()}
}

// keep is before where now says the same, so that what was made from it stands.
func keep[T any](before, now *T) *T {
	if before != nil && (before == now || reflect.DeepEqual(before, now)) {
		return before
	}
	return now
}

// keepList is keep for a list of which the elements are compared. An empty list is nil.
func keepList[T any](before *[]T, now []T, equal func(a, b T) bool) *[]T {
	switch {
	case len(now) == 0:
		return nil
	case before != nil && slices.EqualFunc(*before, now, equal):
		return before
	}
	return &now
}

// elements of a list of keepList.
func elements[T any](list *[]T) []T {
	if list == nil {
		return nil
	}
	return *list
}

// same compares what == compares.
func same[T comparable](a, b T) bool { return a == b }

// report gathers findings on objects.
type report struct {
	origins interface {
		Origin(snapshot.Key) snapshot.Origin
	}
	findings []finding.Finding
}

// find adds what finding.New makes.
func (r *report) find(key snapshot.Key, code finding.Code, field, message string, remedy ...string) {
	r.findings = append(r.findings, finding.New(code, key, field, message, remedy...))
}

// ref names an object together with where it was written.
func (r *report) ref(key snapshot.Key) model.Ref {
	return at(key.String(), r.origins.Origin(key))
}

func at(what string, o snapshot.Origin) model.Ref {
	if o.File == "" {
		return model.Ref(what)
	}
	return model.Ref(what + " (" + o.File + ":" + strconv.Itoa(o.Line) + ")")
}

// guarded works on one object. A fault of Isthmus there is a finding on that object and never the end of the
// compilation. It closes what an object closes that is not carried out.
func (r *report) guarded(key snapshot.Key, shut func(snapshot.Closed), work func()) {
	defer func() {
		fault := recover()
		if fault == nil {
			return
		}
		reason := fmt.Sprintf("Isthmus fails on it: %v", fault)
		r.find(key, "ISM0202", "", reason)
		if _, is := kind.Named(key.Kind); is && shut != nil {
			shut(snapshot.Closed{Key: key, Origin: r.origins.Origin(key), Reason: reason})
		}
	}()
	work()
}
