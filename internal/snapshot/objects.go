package snapshot

import (
	"cmp"
	"iter"
	"slices"
	"strings"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Objects is an immutable set of objects with unique keys. With returns the next version, which shares all unchanged
// parts: a part that holds the same objects has the same pointer. A nil *Objects is the empty set.
type Objects struct {
	namespaces []*NamespaceObjects // sorted by name; none is empty
	kinds      []*list             // sorted by kind; only the memoised values of each, filled on first use
}

// NamespaceObjects are the objects of one namespace, or those that have no namespace.
type NamespaceObjects struct {
	Name  string
	kinds []*list // sorted by kind; none is empty
}

// list holds the objects of one kind.
type list struct {
	kind    string
	objects []*Object    // sorted by name
	values  atomic.Value // memoised []T of the objects' values, filled on first use
}

// Change is a list of edits that lead from one version of a set to the next. The last edit of a key wins.
type Change struct{ edits []edit }

type edit struct {
	key Key
	to  *Object // nil removes the object
}

// Put adds an object, or replaces the object of its key.
func (c *Change) Put(o *Object) { c.edits = append(c.edits, edit{o.Key, o}) }

// Remove deletes the object of a key.
func (c *Change) Remove(k Key) { c.edits = append(c.edits, edit{key: k}) }

// Edits yields one edit per key, sorted by kind, namespace and name. A nil object means removal.
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

// PutAll returns a change that puts objects of unknown origin.
func PutAll[T metav1.Object](values ...T) Change {
	var c Change
	for _, v := range values {
		c.Put(NewObject(v, Origin{}))
	}
	return c
}

// ObjectsOf returns a set of objects of unknown origin.
func ObjectsOf(values ...metav1.Object) *Objects { return (*Objects)(nil).With(PutAll(values...)) }

// With returns the set after a change. Putting an object that equals the present one keeps the present one; putting one
// of equal content keeps the present value. The cost grows with the change, the lists that it touches and the number of
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

// with applies edits (sorted by kind and name) and returns nil if the namespace becomes empty. It records in changed
// the kinds that differ.
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

// with applies edits (sorted by name) and returns nil if the list becomes empty.
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

// lengthOf counts the leading elements for which fits holds.
func lengthOf[E any](s []E, fits func(E) bool) int {
	if n := slices.IndexFunc(s, func(e E) bool { return !fits(e) }); n >= 0 {
		return n
	}
	return len(s)
}

// replace puts is at index at of a sorted slice, or removes the element there if is is nil. found says whether there is
// an element to replace.
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
