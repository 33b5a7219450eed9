package file

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/snapshot"
)

// objects is what all files together say. One object written twice belongs to the oldest; the others wait behind.
type objects struct {
	ages      *ages
	dated     bool // configuration tells when objects were first seen
	claims    map[snapshot.Key][]claim
	conflicts map[snapshot.Key]bool
	closed    map[snapshot.Key]snapshot.Closed // by slot: what holds it and is not carried out
	config    *snapshot.Config                 // of those in effect; findings and what is closed are the caller's
}

// claim is one file's wish to define an object.
type claim struct {
	place
	object *istioyaml.Object // nil when it cannot be read and never was
	broken *istioyaml.Broken
	seen   time.Time
}

// pos is where the claim is written.
func (c claim) pos() snapshot.Origin {
	if c.object != nil {
		return c.object.Origin
	}
	return c.broken.Origin
}

func newObjects(a *ages, dated bool) *objects {
	return &objects{
		ages: a, dated: dated, claims: map[snapshot.Key][]claim{}, conflicts: map[snapshot.Key]bool{},
		closed: map[snapshot.Key]snapshot.Closed{}, config: &snapshot.Config{},
	}
}

// slot is the key under which an object competes: there is one slot for all Mesh objects.
func slot(k snapshot.Key) snapshot.Key {
	if k.Kind == "Mesh" {
		return snapshot.Key{Kind: "Mesh"}
	}
	return k
}

// update is what one file said before and says now.
type update struct {
	file         string // inside the folder
	before, then []entry
}

// trim leaves out the objects at the beginning and the end that are the same before and then. A key is not in
// both parts, except that all Mesh objects share a slot, so those stay.
func (u update) trim() update {
	same := func(a, b entry) bool { return a.object == b.object && a.broken == b.broken && a.key.Kind != "Mesh" }
	for len(u.before) > 0 && len(u.then) > 0 && same(u.before[0], u.then[0]) {
		u.before, u.then = u.before[1:], u.then[1:]
	}
	for b, t := len(u.before)-1, len(u.then)-1; b >= 0 && t >= 0 && same(u.before[b], u.then[t]); b, t = b-1, t-1 {
		u.before, u.then = u.before[:b], u.then[:t]
	}
	return u
}

// apply replaces what some files said and reports whether anything changed.
func (o *objects) apply(updates []update, now time.Time, unsettled func(file string) bool) bool {
	touched := map[snapshot.Key]claim{} // slot → who held it before
	for _, u := range updates {
		o.replace(u, touched, now)
	}
	change := o.ages.change(now)
	changed := map[string]map[snapshot.Key]bool{} // kind → keys
	for s, was := range touched {
		o.order(s, now, change, unsettled)
		var is claim
		if c := o.claims[s]; len(c) > 0 {
			is = c[0]
		}
		if was == is {
			continue
		}
		o.closing(s, is)
		if changed[s.Kind] == nil {
			changed[s.Kind] = map[snapshot.Key]bool{}
		}
		for _, x := range []claim{was, is} {
			if x.key.Kind != "" {
				changed[s.Kind][x.key] = true
			}
		}
	}
	if len(changed) > 0 {
		o.rebuild(changed)
	}
	return len(changed) > 0
}

// replace puts what a file says now in the place of what it said. New claims have no age yet.
func (o *objects) replace(u update, touched map[snapshot.Key]claim, now time.Time) {
	u = u.trim()
	fresh := map[snapshot.Key][]claim{}
	for _, e := range u.then {
		s := slot(e.key)
		fresh[s] = append(fresh[s], claim{place: place{e.key, u.file}, object: e.object, broken: e.broken})
	}
	for _, e := range u.before {
		if s := slot(e.key); fresh[s] == nil {
			fresh[s] = []claim{}
		}
	}
	for s, mine := range fresh {
		if _, ok := touched[s]; !ok {
			touched[s] = claim{}
			if old := o.claims[s]; len(old) > 0 {
				touched[s] = old[0]
			}
		}
		var all []claim
		for _, c := range o.claims[s] {
			if c.file != u.file {
				all = append(all, c)
				continue
			}
			if i := slices.IndexFunc(mine, func(m claim) bool { return m.place == c.place }); i >= 0 {
				mine[i].seen = c.seen
			} else {
				o.ages.gone(s, c, now)
			}
		}
		o.claims[s] = append(all, mine...)
	}
}

// order brings a slot's claims into the order of their ages.
func (o *objects) order(s snapshot.Key, now, change time.Time, unsettled func(file string) bool) {
	claims := o.claims[s]
	var fresh []*claim
	for i := range claims {
		if claims[i].seen.IsZero() {
			fresh = append(fresh, &claims[i])
		}
	}
	if len(fresh) > 0 {
		o.ages.admit(s, fresh, len(fresh) < len(claims), now, change, unsettled)
	}
	slices.SortStableFunc(claims, func(a, b claim) int { return a.seen.Compare(b.seen) })
	delete(o.conflicts, s)
	switch len(claims) {
	case 0:
		delete(o.claims, s)
	case 1:
	default:
		o.conflicts[s] = true
	}
}

// closing notes whether a slot is held by what is not carried out.
func (o *objects) closing(s snapshot.Key, c claim) {
	delete(o.closed, s)
	if c.object != nil || c.broken == nil || !c.broken.Security && s.Kind != "WorkloadEntry" {
		return // without a WorkloadEntry nobody knows which labels its workload has, so that one is closed
	}
	closed := c.broken.Closed
	closed.Origin.FirstSeen = o.age(c)
	o.closed[s] = closed
}

func (o *objects) age(c claim) time.Time {
	if o.dated {
		return c.seen
	}
	return time.Time{}
}

// rebuild makes a new configuration that shares with the old one every slice of a kind in which nothing changed.
func (o *objects) rebuild(changed map[string]map[snapshot.Key]bool) {
	next := *o.config
	for kindName, set := range changed {
		keys := slices.SortedFunc(maps.Keys(set), func(a, b snapshot.Key) int { return compare(a.Namespace, a.Name, b.Namespace, b.Name) })
		o.set(&next, kindName, keys)
		next.Origins = next.Origins.With(keys, func(k snapshot.Key) (snapshot.Origin, bool) {
			c, ok := o.inEffect(k)
			if !ok {
				return snapshot.Origin{}, false
			}
			origin := c.object.Origin
			origin.FirstSeen = o.age(c)
			return origin, true
		})
	}
	o.config = &next
}

// inEffect is what defines the object of a key; false when there is none or another one holds its slot.
func (o *objects) inEffect(k snapshot.Key) (claim, bool) {
	if c := o.claims[slot(k)]; len(c) > 0 && c[0].key == k && c[0].object != nil {
		return c[0], true
	}
	return claim{}, false
}

func compare(ns1, name1, ns2, name2 string) int {
	return cmp.Or(cmp.Compare(ns1, ns2), cmp.Compare(name1, name2))
}

// set brings a kind's list in the configuration up to date.
func (o *objects) set(c *snapshot.Config, kindName string, keys []snapshot.Key) {
	switch kindName {
	case "Mesh":
		c.Mesh = nil
		if claims := o.claims[slot(keys[0])]; len(claims) > 0 && claims[0].object != nil {
			c.Mesh = claims[0].object.Value.(*v1alpha1.Mesh)
		}
	case "MeshPeer":
		c.MeshPeers = merge(o, c.MeshPeers, keys)
	case "FederatedExport":
		c.FederatedExports = merge(o, c.FederatedExports, keys)
	case "FederatedImport":
		c.FederatedImports = merge(o, c.FederatedImports, keys)
	case "Namespace":
		c.Namespaces = merge(o, c.Namespaces, keys)
	case "Service":
		c.Services = merge(o, c.Services, keys)
	case "PeerAuthentication":
		c.PeerAuthentications = merge(o, c.PeerAuthentications, keys)
	case "AuthorizationPolicy":
		c.AuthorizationPolicies = merge(o, c.AuthorizationPolicies, keys)
	case "ServiceEntry":
		c.ServiceEntries = merge(o, c.ServiceEntries, keys)
	case "WorkloadEntry":
		c.WorkloadEntries = merge(o, c.WorkloadEntries, keys)
	default:
		panic("file: kind " + kindName + " has no place in snapshot.Config")
	}
}

// merge is a kind's list with the changed keys, sorted, as they now are. Only these are looked at; the rest is copied.
func merge[T metav1.Object](o *objects, old []T, keys []snapshot.Key) []T {
	list := make([]T, 0, len(old)+len(keys))
	for _, k := range keys {
		at, found := slices.BinarySearchFunc(old, k, func(x T, k snapshot.Key) int {
			return compare(x.GetNamespace(), x.GetName(), k.Namespace, k.Name)
		})
		list, old = append(list, old[:at]...), old[at:]
		if is, ok := o.inEffect(k); ok {
			list = append(list, is.object.Value.(T))
		}
		if found {
			old = old[1:]
		}
	}
	return append(list, old...)
}

// findings names the objects that wait behind another of the same name.
func (o *objects) findings() []finding.Finding {
	var out []finding.Finding
	for s := range o.conflicts {
		claims := o.claims[s]
		first := claims[0]
		for _, c := range claims[1:] {
			at := c.pos()
			f := finding.Finding{
				Code: CodeTwice, Object: c.key.String(), Field: "metadata.name", File: at.File, Line: at.LineOf("metadata.name"),
				Message: fmt.Sprintf("the object is also written at %s:%d, which is older and stays in "+
					"effect; this one is not used", first.pos().File, first.pos().Line),
				Remedy: "remove one of the two",
			}
			if s.Kind == "Mesh" {
				f.Code = CodeTwoMeshes
				f.Message = fmt.Sprintf("there is already %s at %s:%d, which is older and stays in "+
					"effect; this one is not used", first.key, first.pos().File, first.pos().Line)
				f.Remedy = "keep exactly one Mesh"
			}
			out = append(out, f)
		}
	}
	return out
}
