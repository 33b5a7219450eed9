package snapshot

import (
	"iter"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/kind"
)

// Get returns the object of a key, or nil.
func (o *Objects) Get(k Key) *Object { return o.Namespace(k.Namespace).get(k) }

func (n *NamespaceObjects) get(k Key) *Object {
	l := n.list(k.Kind)
	if l == nil {
		return nil
	}
	if at, found := slices.BinarySearchFunc(l.objects, k.Name, (*Object).compare); found {
		return l.objects[at]
	}
	return nil
}

// Origin returns the origin of an object of the namespace, or the zero Origin if there is none.
func (n *NamespaceObjects) Origin(k Key) Origin {
	if o := n.get(k); o != nil {
		return o.Origin
	}
	return Origin{}
}

// Namespaces returns the non-empty namespaces, sorted by name. The slice is shared and must not be modified.
func (o *Objects) Namespaces() []*NamespaceObjects { return o.all() }

// Namespace returns the objects of a namespace, or nil if it is empty. The pointer stays the same as long as nothing in
// the namespace changes. "" selects the objects that have no namespace.
func (o *Objects) Namespace(name string) *NamespaceObjects {
	if o == nil {
		return nil
	}
	if at, found := slices.BinarySearchFunc(o.namespaces, name, (*NamespaceObjects).compare); found {
		return o.namespaces[at]
	}
	return nil
}

func (n *NamespaceObjects) list(kind string) *list {
	if n == nil {
		return nil
	}
	return find(n.kinds, kind)
}

func find(kinds []*list, kind string) *list {
	if at, found := slices.BinarySearchFunc(kinds, kind, (*list).compare); found {
		return kinds[at]
	}
	return nil
}

// Len counts the objects.
func (o *Objects) Len() int {
	n := 0
	if o != nil {
		for _, ns := range o.namespaces {
			for _, l := range ns.kinds {
				n += len(l.objects)
			}
		}
	}
	return n
}

// All yields all objects, sorted by namespace, kind and name.
func (o *Objects) All() iter.Seq[*Object] {
	return func(yield func(*Object) bool) {
		if o == nil {
			return
		}
		for _, ns := range o.namespaces {
			for _, l := range ns.kinds {
				for _, x := range l.objects {
					if !yield(x) {
						return
					}
				}
			}
		}
	}
}

// Set can be read by kind: *Objects, *Config and *NamespaceObjects.
type Set interface {
	ofKind(kind string) *list           // nil if there are none
	each(kind string) iter.Seq[*Object] // sorted by namespace and name
}

func (o *Objects) ofKind(kind string) *list {
	if o == nil {
		return nil
	}
	return find(o.kinds, kind)
}

func (o *Objects) each(kind string) iter.Seq[*Object] {
	return func(yield func(*Object) bool) {
		if o == nil {
			return
		}
		for _, ns := range o.namespaces {
			for x := range ns.each(kind) {
				if !yield(x) {
					return
				}
			}
		}
	}
}

func (n *NamespaceObjects) ofKind(kind string) *list { return n.list(kind) }

func (n *NamespaceObjects) each(kind string) iter.Seq[*Object] {
	l := n.list(kind)
	if l == nil {
		return func(func(*Object) bool) {}
	}
	return slices.Values(l.objects)
}

func (c *Config) ofKind(kind string) *list {
	if c == nil {
		return nil
	}
	return c.Objects.ofKind(kind)
}

func (c *Config) each(kind string) iter.Seq[*Object] { return c.Objects.each(kind) }

// Of returns the values of all objects of a kind, sorted by namespace and name: Of[*corev1.Service](cfg). The slice is
// shared and must not be modified. It panics if T belongs to no kind.
func Of[T metav1.Object](in Set) []T {
	k := kindOf[T]()
	l := in.ofKind(k)
	if l == nil {
		return nil
	}
	if made, ok := l.values.Load().([]T); ok {
		return made
	}
	made := make([]T, 0, len(l.objects))
	for o := range in.each(k) {
		made = append(made, o.Value.(T))
	}
	made = slices.Clip(made)
	l.values.Store(made)
	return made
}

// Each returns the objects of a kind, by namespace and name. It panics for a T that is of no kind.
func Each[T metav1.Object](in Set) iter.Seq[*Object] { return in.each(kindOf[T]()) }

// Named returns the value of one object, or nil.
func Named[T metav1.Object](in *Objects, namespace, name string) T {
	var none T
	if o := in.Get(KeyFor[T](namespace, name)); o != nil {
		return o.Value.(T)
	}
	return none
}

// Same reports whether two sets hold identical (pointer-equal) objects of a kind. It may return false for equal sets.
func Same[T metav1.Object](a, b Set) bool {
	k := kindOf[T]()
	return a.ofKind(k) == b.ofKind(k)
}

func kindOf[T metav1.Object]() string {
	t := reflect.TypeFor[T]()
	k, ok := kind.OfType(t)
	if !ok {
		panic("snapshot: " + t.String() + " is of no kind")
	}
	return k.Name
}

// Diff yields the objects that are not identical in an earlier set, as (before, after), sorted by namespace, kind and
// name. Before is nil for an added object, after for a removed one. The cost grows with the lists that differ and the
// number of namespaces.
func (o *Objects) Diff(earlier *Objects) iter.Seq2[*Object, *Object] {
	return func(yield func(was, is *Object) bool) {
		if o == earlier {
			return
		}
		pairs(earlier.all(), o.all(), func(n *NamespaceObjects) string { return n.Name },
			func(a, b *NamespaceObjects) bool {
				return pairs(a.all(), b.all(), func(l *list) string { return l.kind }, func(a, b *list) bool {
					return pairs(a.all(), b.all(), func(x *Object) string { return x.Key.Name }, yield)
				})
			})
	}
}

func (o *Objects) all() []*NamespaceObjects {
	if o == nil {
		return nil
	}
	return o.namespaces
}

func (n *NamespaceObjects) all() []*list {
	if n == nil {
		return nil
	}
	return n.kinds
}

func (l *list) all() []*Object {
	if l == nil {
		return nil
	}
	return l.objects
}

// pairs merges two sorted slices and yields the elements that are not in both. It returns false if yield stopped it.
func pairs[E any](a, b []*E, name func(*E) string, yield func(a, b *E) bool) bool {
	for len(a) > 0 || len(b) > 0 {
		var x, y *E
		order := 0
		switch {
		case len(b) == 0:
			order = -1
		case len(a) == 0:
			order = 1
		default:
			order = strings.Compare(name(a[0]), name(b[0]))
		}
		if order <= 0 {
			x, a = a[0], a[1:]
		}
		if order >= 0 {
			y, b = b[0], b[1:]
		}
		if x != y && !yield(x, y) {
			return false
		}
	}
	return true
}

// ChangeSince returns the change that turns an earlier set into this one.
func (o *Objects) ChangeSince(earlier *Objects) Change {
	var c Change
	for was, is := range o.Diff(earlier) {
		if is != nil {
			c.Put(is)
		} else {
			c.Remove(was.Key)
		}
	}
	return c
}

// WithOrigins replaces the origins of the named objects.
func (o *Objects) WithOrigins(origins map[Key]Origin) *Objects {
	var c Change
	for k, origin := range origins {
		if x := o.Get(k); x != nil {
			c.Put(x.At(origin))
		}
	}
	return o.With(c)
}
