package file

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/snapshot"
)

// objects is what all files together say. One object written twice belongs to who wrote it first; the others wait behind.
type objects struct {
	claims    map[snapshot.Key][]claim
	conflicts map[snapshot.Key]bool
	kinds     map[string][]*istioyaml.Object // in effect, sorted by namespace and name
	config    *snapshot.Config               // made of kinds; its findings are the caller's
}

// claim is one file's wish to define an object.
type claim struct {
	file   string
	object *istioyaml.Object
}

func newObjects() *objects {
	return &objects{
		claims: map[snapshot.Key][]claim{}, conflicts: map[snapshot.Key]bool{}, kinds: map[string][]*istioyaml.Object{},
		config: &snapshot.Config{Origins: map[snapshot.Key]snapshot.Origin{}},
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
	next.Origins = maps.Clone(next.Origins)
	for kindName, keys := range changed {
		list := o.merge(kindName, keys)
		o.kinds[kindName] = list
		set(&next, kindName, list)
		for k := range keys {
			delete(next.Origins, k)
		}
		for k := range keys {
			if c := o.claims[slot(k)]; len(c) > 0 {
				next.Origins[c[0].object.Key] = c[0].object.Origin
			}
		}
	}
	o.config = &next
}

// merge is a kind's list with the changed keys as they now are.
func (o *objects) merge(kindName string, keys map[snapshot.Key]bool) []*istioyaml.Object {
	fresh := make([]*istioyaml.Object, 0, len(keys))
	for k := range keys {
		if c := o.claims[slot(k)]; len(c) > 0 && c[0].object.Key == k {
			fresh = append(fresh, c[0].object)
		}
	}
	slices.SortFunc(fresh, byName)
	old := o.kinds[kindName]
	list := make([]*istioyaml.Object, 0, len(old)+len(fresh))
	for _, x := range old {
		if keys[x.Key] {
			continue
		}
		for len(fresh) > 0 && byName(fresh[0], x) < 0 {
			list, fresh = append(list, fresh[0]), fresh[1:]
		}
		list = append(list, x)
	}
	return append(list, fresh...)
}

func byName(a, b *istioyaml.Object) int {
	return cmp.Or(cmp.Compare(a.Key.Namespace, b.Key.Namespace), cmp.Compare(a.Key.Name, b.Key.Name))
}

// set writes a kind's list into the configuration.
func set(c *snapshot.Config, kindName string, list []*istioyaml.Object) {
	switch kindName {
	case "Mesh":
		c.Mesh = nil
		if len(list) > 0 {
			c.Mesh = list[0].Value.(*v1alpha1.Mesh)
		}
	case "MeshPeer":
		c.MeshPeers = typed[v1alpha1.MeshPeer](list)
	case "FederatedExport":
		c.FederatedExports = typed[v1alpha1.FederatedExport](list)
	case "FederatedImport":
		c.FederatedImports = typed[v1alpha1.FederatedImport](list)
	case "Namespace":
		c.Namespaces = typed[corev1.Namespace](list)
	case "Service":
		c.Services = typed[corev1.Service](list)
	case "PeerAuthentication":
		c.PeerAuthentications = typed[security.PeerAuthentication](list)
	case "AuthorizationPolicy":
		c.AuthorizationPolicies = typed[security.AuthorizationPolicy](list)
	case "ServiceEntry":
		c.ServiceEntries = typed[networking.ServiceEntry](list)
	case "WorkloadEntry":
		c.WorkloadEntries = typed[networking.WorkloadEntry](list)
	default:
		panic("file: kind " + kindName + " has no place in snapshot.Config")
	}
}

func typed[T any](list []*istioyaml.Object) []*T {
	out := make([]*T, len(list))
	for i, o := range list {
		out[i] = o.Value.(*T)
	}
	return out
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
