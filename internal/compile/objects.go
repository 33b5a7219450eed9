package compile

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/internal/snapshot"
)

// objects are those of one namespace, or nil. The pointer stays the same while nothing in the namespace changes.
type objects = *snapshot.NamespaceObjects

// objectsByNamespace omits objects without a namespace.
func objectsByNamespace(cfg *snapshot.Config) map[string]objects {
	out := map[string]objects{}
	for _, n := range cfg.Objects.Namespaces() {
		if n.Name != "" {
			out[n.Name] = n
		}
	}
	return out
}

// has reports whether there are objects of a kind.
func has[T metav1.Object](o objects) bool { return len(snapshot.Of[T](o)) > 0 }

// age orders objects: by when they were first seen, then by name.
type age struct {
	key  snapshot.Key
	seen time.Time
}

func ageOf(o *snapshot.Object) age { return age{o.Key, o.Origin.FirstSeen} }

// compare is snapshot.Config.Older of the two objects.
func (a age) compare(b age) int {
	return cmp.Or(snapshot.CompareAge(a.seen, b.seen), a.key.Compare(b.key))
}

// ties reports whether it is unknown which of the two is older.
func (a age) ties(b age) bool { return snapshot.CompareAge(a.seen, b.seen) == 0 }

// oldestFirst yields the objects of a kind in some namespaces with their ages.
func oldestFirst[T metav1.Object](in ...objects) iter.Seq2[age, T] {
	type aged struct {
		age
		object T
	}
	var all []aged
	for _, ns := range in {
		for o := range snapshot.Each[T](ns) {
			all = append(all, aged{ageOf(o), o.Value.(T)})
		}
	}
	slices.SortFunc(all, func(a, b aged) int { return a.compare(b.age) })
	return func(yield func(age, T) bool) {
		for _, a := range all {
			if !yield(a.age, a.object) {
				return
			}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
