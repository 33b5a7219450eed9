// Package compile turns a snapshot into a mesh and findings. It is pure: no I/O, no clock, same input, same output.
//
// Every namespace is a unit. unitOf compiles a namespace into a part: services, workloads, policies, endpoints and
// findings. link combines the parts: it resolves conflicts about names and addresses, and computes who may call whom,
// what crosses to peers, and which proxy serves which workload.
//
// Values are immutable, and a value that equals its predecessor is replaced by it (keep). So equality is pointer
// equality everywhere: a part is recompiled only if its inputs differ, and a step of link runs only if what it reads
// differs. Next passes the previous result to the same functions that Mesh calls without one; there is no second way to
// compile. A step that must look at the whole mesh (names, addresses) reads a small extract of each part, so that it is
// skipped while the extracts stay the same.
//
// A kind that affects other namespaces does so in one of two ways:
//
//   - A unit may not read another namespace. What it needs of one is a value in its inputs: rootPolicies are the root
//     namespace's policies, places says which of the wanted names the namespace gets. Traffic rules for another
//     namespace's Service (DestinationRule) or a VirtualService's delegates would be such values: each namespace offers
//     them from its own objects, a step like settleNames decides who gets which, and a unit whose share stays the same
//     is not recompiled.
//   - What concerns a pair of caller and destination belongs to link: visible applies exportTo and the Sidecar of a
//     caller's namespace.
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
	Mesh     *model.Mesh // nil if the configuration has no Mesh
	Findings []finding.Finding
	// OnlyEndpoints means that the mesh differs from the previous one only in endpoints.
	OnlyEndpoints bool

	gathered *gathered
	units    map[string]*unitOutcome // by namespace
	names    made[*settledNames]
	link     *linked
}

// Mesh compiles a snapshot. Without a Mesh object it returns nil and a finding.
func Mesh(snap *snapshot.Snapshot) (*model.Mesh, []finding.Finding) {
	c := Next(nil, snap)
	finding.Sort(c.Findings)
	return c.Mesh, c.Findings
}

// Next is Mesh made incremental. Its cost depends on what changed since before (which may be nil), plus a few passes
// over pointers. The result always equals that of Mesh. Unchanged values keep their pointers.
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

// onlyEndpointsDiffer is cheap because meshes share unchanged values.
func (c *Compiled) onlyEndpointsDiffer(before *Compiled) bool {
	if c.link.services != before.link.services || c.link.workloads != before.link.workloads ||
		!maps.Equal(c.Mesh.Proxies, before.Mesh.Proxies) {
		return false // routes may be equal although their endpoints differ
	}
	a, b := *before.Mesh, *c.Mesh
	a.Endpoints, b.Endpoints = nil, nil
	return reflect.DeepEqual(a, b) && !slices.ContainsFunc(c.Mesh.Imports, func(i *model.Import) bool {
		d := i.AtGateways() // endpoints with host names are sent with the route
		return d.Resolved && !slices.Equal(before.Mesh.Endpoints[d.Set], c.Mesh.Endpoints[d.Set])
	})
}

// ChangedEndpoints returns the sets that differ from before, which may be nil. The cost depends on the namespaces that
// changed.
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

// made is the result of a step and its inputs, which are compared with ==.
type made[T any] struct {
	from []any
	out  T
}

// again repeats the step unless its inputs are the same.
func (m made[T]) again(from []any, make func() T) made[T] {
	if m.from != nil && slices.Equal(m.from, from) {
		return m
	}
	return made[T]{from, make()}
}

// keep returns before if now is equal, so that what was derived from before stays valid.
func keep[T any](before, now *T) *T {
	if before != nil && (before == now || reflect.DeepEqual(before, now)) {
		return before
	}
	return now
}

// keepList is keep for a list, whose elements are compared with equal. An empty list is nil.
func keepList[T any](before *[]T, now []T, equal func(a, b T) bool) *[]T {
	switch {
	case len(now) == 0:
		return nil
	case before != nil && slices.EqualFunc(*before, now, equal):
		return before
	}
	return &now
}

// elements returns the elements of a list made by keepList.
func elements[T any](list *[]T) []T {
	if list == nil {
		return nil
	}
	return *list
}

// same is == as a function.
func same[T comparable](a, b T) bool { return a == b }

// report collects findings about objects.
type report struct {
	origins interface {
		Origin(snapshot.Key) snapshot.Origin
	}
	findings []finding.Finding
}

// find adds the finding that finding.New returns.
func (r *report) find(key snapshot.Key, code finding.Code, field, message string, remedy ...string) {
	r.findings = append(r.findings, finding.New(code, key, field, message, remedy...))
}

// ref returns an object's name with its position.
func (r *report) ref(key snapshot.Key) model.Ref {
	return at(key.String(), r.origins.Origin(key))
}

func at(what string, o snapshot.Origin) model.Ref {
	if o.File == "" {
		return model.Ref(what)
	}
	return model.Ref(what + " (" + o.File + ":" + strconv.Itoa(o.Line) + ")")
}

// guarded processes one object. A panic there becomes a finding about that object and does not end the compilation. If
// the object is of a security kind, what it selects is closed.
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
