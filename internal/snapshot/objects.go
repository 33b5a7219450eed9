package snapshot

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Objects is an immutable set of objects, each key once. The next version is made by With and shares all that did not
// change: what holds the very same objects is the very same pointer. A nil *Objects is the empty set.
type Objects struct {
	namespaces []*NamespaceObjects // sorted by name; none is empty
	kinds      []*list             // sorted by kind; of each only the values, when somebody asked for them
}

// NamespaceObjects are the objects of one namespace, or those without a namespace.
type NamespaceObjects struct {
	Name  string
	kinds []*list // sorted by kind; none is empty
}

// list is the objects of one kind.
type list struct {
	kind    string
	objects []*Object    // sorted by name
	values  atomic.Value // a []T of the objects' values, made when somebody first asks
}

// Change is what becomes different from one version of a set to the next. Of several edits of one key the last counts.
type Change struct{ edits []edit }

type edit struct {
	key Key
	to  *Object // nil: there is none any more
}

// Put has an object in the set, in the place of that of its key.
func (c *Change) Put(o *Object) { c.edits = append(c.edits, edit{o.Key, o}) }

// Remove has no object of a key in the set.
func (c *Change) Remove(k Key) { c.edits = append(c.edits, edit{key: k}) }

// Edits are what is put, or removed where there is nil, by kind, namespace and name: each key once.
func (c Change) Edits() iter.Seq2[Key, *Object] {
	edits := slices.Clone(c.edits)
	slices.SortStableFunc(edits, func(a, b edit) int { return a.key.Compare(b.key) })
	return func(yield func(Key, *Object) bool) {
		for i, e := range edits {
			if last := i+1 == len(edits) || edits[i+1].key != e.key; last && !yield(e.key, e.to) {
				return
			}
		}
	}
}

// PutAll is a change that puts objects of unknown origin.
func PutAll[T metav1.Object](values ...T) Change {
	var c Change
	for _, v := range values {
		c.Put(NewObject(v, Origin{}))
	}
	return c
}

// ObjectsOf is a set of objects of unknown origin.
func ObjectsOf(values ...metav1.Object) *Objects { return (*Objects)(nil).With(PutAll(values...)) }

// With is the set after a change. An object that is put where an equal one stands leaves that in place, and one of
// equal content keeps the value of that. The cost lies in the change, in the lists that it touches and in the number of
// namespaces.
func (o *Objects) With(c Change) *Objects {
	edits := slices.Clone(c.edits)
	slices.SortStableFunc(edits, func(a, b edit) int {
		return cmp.Or(cmp.Compare(a.key.Namespace, b.key.Namespace), cmp.Compare(a.key.Kind, b.key.Kind),
			cmp.Compare(a.key.Name, b.key.Name))
	})
	next := &Objects{}
	if o != nil {
		*next = Objects{namespaces: slices.Clone(o.namespaces), kinds: slices.Clone(o.kinds)}
	}
	changed := map[string]bool{}
	for len(edits) > 0 {
		name := edits[0].key.Namespace
		n := lengthOf(edits, func(e edit) bool { return e.key.Namespace == name })
		at, found := slices.BinarySearchFunc(next.namespaces, name, (*NamespaceObjects).compare)
		was := &NamespaceObjects{Name: name}
		if found {
			was = next.namespaces[at]
		}
		next.namespaces = replace(next.namespaces, at, found, was.with(edits[:n], changed))
		edits = edits[n:]
	}
	if len(changed) == 0 {
		return o
	}
	for name := range changed {
		at, found := slices.BinarySearchFunc(next.kinds, name, (*list).compare)
		next.kinds = replace(next.kinds, at, found, &list{kind: name})
	}
	return next
}

// with is the namespace after edits of it, sorted by kind and name; nil when it is empty. It notes the kinds in which
// anything is different.
func (n *NamespaceObjects) with(edits []edit, changed map[string]bool) *NamespaceObjects {
	next := &NamespaceObjects{Name: n.Name, kinds: slices.Clone(n.kinds)}
	same := true
	for len(edits) > 0 {
		name := edits[0].key.Kind
		count := lengthOf(edits, func(e edit) bool { return e.key.Kind == name })
		at, found := slices.BinarySearchFunc(next.kinds, name, (*list).compare)
		var was *list
		if found {
			was = next.kinds[at]
		}
		if is := was.with(edits[:count]); is != was {
			changed[name], same = true, false
			next.kinds = replace(next.kinds, at, found, is)
		}
		edits = edits[count:]
	}
	switch {
	case len(next.kinds) == 0:
		return nil
	case same:
		return n
	}
	return next
}

// with is the list after edits of it, sorted by name; nil when it is empty.
func (l *list) with(edits []edit) *list {
	var rest []*Object
	if l != nil {
		rest = l.objects
	}
	next := &list{kind: edits[0].key.Kind, objects: make([]*Object, 0, len(rest)+len(edits))}
	same := true
	for i, e := range edits {
		if i+1 < len(edits) && edits[i+1].key == e.key {
			continue
		}
		at, found := slices.BinarySearchFunc(rest, e.key.Name, (*Object).compare)
		next.objects, rest = append(next.objects, rest[:at]...), rest[at:]
		var was *Object
		if found {
			was, rest = rest[0], rest[1:]
		}
		is := e.to.after(was)
		if is != nil {
			next.objects = append(next.objects, is)
		}
		same = same && is == was
	}
	if same {
		return l
	}
	if next.objects = append(next.objects, rest...); len(next.objects) == 0 {
		return nil
	}
	return next
}

func (o *Object) compare(name string) int           { return strings.Compare(o.Key.Name, name) }
func (l *list) compare(kind string) int             { return strings.Compare(l.kind, kind) }
func (n *NamespaceObjects) compare(name string) int { return strings.Compare(n.Name, name) }

// lengthOf is how many elements at the beginning fit.
func lengthOf[E any](s []E, fits func(E) bool) int {
	if n := slices.IndexFunc(s, func(e E) bool { return !fits(e) }); n >= 0 {
		return n
	}
	return len(s)
}

// replace puts what there now is, which may be nil, at a place of a sorted slice where something is found or not.
func replace[E any](s []*E, at int, found bool, is *E) []*E {
	switch {
	case found && is != nil:
		s[at] = is
	case found:
		s = slices.Delete(s, at, at+1)
	case is != nil:
		s = slices.Insert(s, at, is)
	}
	return s
}
