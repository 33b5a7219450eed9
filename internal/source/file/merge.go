package file

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/snapshot"
)

// objects is what all files together say. One object written twice belongs to who wrote it first; the others wait behind.
type objects struct {
	claims    map[snapshot.Key][]claim
	conflicts map[snapshot.Key]bool
	config    *snapshot.Config // of those in effect; its findings are the caller's
}

// claim is one file's wish to define an object.
type claim struct {
	file   string
	object *istioyaml.Object
}

func newObjects() *objects {
	return &objects{claims: map[snapshot.Key][]claim{}, conflicts: map[snapshot.Key]bool{}, config: &snapshot.Config{}}
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
	file         string
	before, then []*istioyaml.Object
}

// trim leaves out the objects at the beginning and the end that are the same before and then. A key is not in
// both parts, except that all Mesh objects share a slot, so those stay.
func (u update) trim() update {
	for len(u.before) > 0 && len(u.then) > 0 && u.before[0] == u.then[0] && u.before[0].Key.Kind != "Mesh" {
		u.before, u.then = u.before[1:], u.then[1:]
	}
	for b, t := len(u.before)-1, len(u.then)-1; b >= 0 && t >= 0 && u.before[b] == u.then[t] && u.before[b].Key.Kind != "Mesh"; b, t = b-1, t-1 {
		u.before, u.then = u.before[:b], u.then[:t]
	}
	return u
}

// apply replaces what some files said and reports whether anything changed.
func (o *objects) apply(updates []update) bool {
	touched := map[snapshot.Key]*istioyaml.Object{} // slot → who held it before
	for _, u := range updates {
		o.replace(u, touched)
	}
	changed := map[string]map[snapshot.Key]bool{} // kind → keys
	for s, was := range touched {
		var is *istioyaml.Object
		if c := o.claims[s]; len(c) > 0 {
			is = c[0].object
		}
		if was == is {
			continue
		}
		if changed[s.Kind] == nil {
			changed[s.Kind] = map[snapshot.Key]bool{}
		}
		for _, x := range []*istioyaml.Object{was, is} {
			if x != nil {
				changed[s.Kind][x.Key] = true
			}
		}
	}
	if len(changed) > 0 {
		o.rebuild(changed)
	}
	return len(changed) > 0
}

func (o *objects) replace(u update, touched map[snapshot.Key]*istioyaml.Object) {
	u = u.trim()
	now := map[snapshot.Key][]claim{}
	for i := range u.then {
		s := slot(u.then[i].Key)
		now[s] = append(now[s], claim{file: u.file, object: u.then[i]})
	}
	for i := range u.before {
		if s := slot(u.before[i].Key); now[s] == nil {
			now[s] = []claim{}
		}
	}
	for s, mine := range now {
		old := o.claims[s]
		if _, ok := touched[s]; !ok {
			touched[s] = nil
			if len(old) > 0 {
				touched[s] = old[0].object
			}
		}
		at := slices.IndexFunc(old, func(c claim) bool { return c.file == u.file })
		others := slices.DeleteFunc(slices.Clone(old), func(c claim) bool { return c.file == u.file })
		if at < 0 {
			at = len(others)
		}
		all := slices.Insert(others, min(at, len(others)), mine...)
		if len(all) == 0 {
			delete(o.claims, s)
		} else {
			o.claims[s] = all
		}
		if len(all) > 1 {
			o.conflicts[s] = true
		} else {
			delete(o.conflicts, s)
		}
	}
}

// rebuild makes a new configuration that shares with the old one every slice of a kind in which nothing changed.
func (o *objects) rebuild(changed map[string]map[snapshot.Key]bool) {
	next := *o.config
	for kindName, set := range changed {
		keys := slices.SortedFunc(maps.Keys(set), func(a, b snapshot.Key) int { return compare(a.Namespace, a.Name, b.Namespace, b.Name) })
		o.set(&next, kindName, keys)
		next.Origins = next.Origins.With(keys, func(k snapshot.Key) (snapshot.Origin, bool) {
			if is := o.inEffect(k); is != nil {
				return is.Origin, true
			}
			return snapshot.Origin{}, false
		})
	}
	o.config = &next
}

// inEffect is the object of a key as it now is, nil when there is none or another one holds its slot.
func (o *objects) inEffect(k snapshot.Key) *istioyaml.Object {
	if c := o.claims[slot(k)]; len(c) > 0 && c[0].object.Key == k {
		return c[0].object
	}
	return nil
}

func compare(ns1, name1, ns2, name2 string) int {
	return cmp.Or(cmp.Compare(ns1, ns2), cmp.Compare(name1, name2))
}

// set brings a kind's list in the configuration up to date.
func (o *objects) set(c *snapshot.Config, kindName string, keys []snapshot.Key) {
	switch kindName {
	case "Mesh":
		c.Mesh = nil
		if claims := o.claims[slot(keys[0])]; len(claims) > 0 {
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
		if is := o.inEffect(k); is != nil {
			list = append(list, is.Value.(T))
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
		first := claims[0].object
		for _, c := range claims[1:] {
			f := finding.Finding{
				Code: CodeTwice, Object: c.object.Key.String(), Field: "metadata.name", File: c.file, Line: c.object.Origin.LineOf("metadata.name"),
				Message: fmt.Sprintf("the object is also written at %s:%d, which stays in effect; this one is not used", first.Origin.File, first.Origin.Line),
				Remedy:  "remove one of the two",
			}
			if s.Kind == "Mesh" {
				f.Code = CodeTwoMeshes
				f.Message = fmt.Sprintf("there is already %s at %s:%d, which stays in effect; this one is not used", first.Key, first.Origin.File, first.Origin.Line)
				f.Remedy = "keep exactly one Mesh"
			}
			out = append(out, f)
		}
	}
	return out
}
