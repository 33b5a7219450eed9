package snapshot

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	security "istio.io/client-go/pkg/apis/security/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"isthmus.dev/isthmus/api/v1alpha1"
)

func (o *Object) text() string {
	return fmt.Sprintf("%s %s %s:%d", o.Key, o.Hash, o.Origin.File, o.Origin.Line)
}

// world is what a set should hold, kept plainly.
type world map[Key]*Object

func (w world) sorted(kind, namespace string) []string {
	keys := slices.SortedFunc(maps.Keys(w), Key.Compare)
	var out []string
	for _, k := range keys {
		if k.Kind == kind && (namespace == "*" || k.Namespace == namespace) {
			out = append(out, k.String())
		}
	}
	return out
}

func keysOf[T metav1.Object](values []T) []string {
	var out []string
	for _, v := range values {
		out = append(out, KeyOf(v).String())
	}
	return out
}

func random(r *rand.Rand) *Object {
	ns, name := string(rune('a'+r.IntN(3))), string(rune('x'+r.IntN(3)))
	origin := Origin{File: string(rune('p' + r.IntN(2))), Line: 1}
	switch r.IntN(3) {
	case 0:
		return NewObject(service(ns, name, int32(1+r.IntN(2))), origin)
	case 1:
		return NewObject(&security.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}},
			origin)
	}
	return NewObject(&v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: name}}, origin)
}

// TestObjectsAreWhatWasPut changes a set at random and compares it with a plain map, and each version with the one
// before.
func TestObjectsAreWhatWasPut(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		var set *Objects
		want := world{}
		for range 40 {
			before, was := set, maps.Clone(want)
			var c Change
			for range r.IntN(5) {
				o := random(r)
				if r.IntN(3) == 0 {
					c.Remove(o.Key)
					delete(want, o.Key)
				} else {
					c.Put(o)
					want[o.Key] = o
				}
			}
			set = set.With(c)
			holds(t, set, want)
			holds(t, before, was)
			shares(t, before, set)
			holds(t, set.With(before.ChangeSince(set)), was)
		}
	}
}

func holds(t *testing.T, set *Objects, want world) {
	t.Helper()
	if set.Len() != len(want) {
		t.Fatalf("%d objects, want %d", set.Len(), len(want))
	}
	for k, o := range want {
		if got := set.Get(k); got == nil || got.text() != o.text() {
			t.Fatalf("%s: %v, want %s", k, got, o.text())
		}
	}
	for o := range set.All() {
		if want[o.Key] == nil {
			t.Fatalf("%s is in the set", o.Key)
		}
	}
	for i, got := range [][]string{
		keysOf(Of[*corev1.Service](set)), keysOf(Of[*corev1.Service](set.Namespace("b"))),
		keysOf(Of[*security.AuthorizationPolicy](set)), keysOf(Of[*v1alpha1.MeshPeer](set)),
		keysOf(Of[*v1alpha1.MeshPeer](set.Namespace(""))),
	} {
		expected := [][]string{
			want.sorted("Service", "*"), want.sorted("Service", "b"), want.sorted("AuthorizationPolicy", "*"),
			want.sorted("MeshPeer", "*"), want.sorted("MeshPeer", ""),
		}[i]
		if !slices.Equal(got, expected) {
			t.Fatalf("list %d is %v, want %v", i, got, expected)
		}
	}
}

// shares demands that what did not change is the very same, and that Since tells all that did.
func shares(t *testing.T, before, set *Objects) {
	t.Helper()
	changed := map[string]bool{}
	kinds := map[string]bool{}
	told := map[Key]bool{}
	for was, is := range set.Diff(before) {
		o := is
		if o == nil {
			o = was
		}
		if before.Get(o.Key) != was || set.Get(o.Key) != is {
			t.Fatalf("Since tells something else of %s", o.Key)
		}
		if was != nil && is != nil && was.text() == is.text() {
			t.Fatalf("%s is another one with the same content at the same place", o.Key)
		}
		if was != nil && is != nil && was.Hash == is.Hash && was.Value != is.Value {
			t.Fatalf("%s has another value, of the same content", o.Key)
		}
		changed[o.Key.Namespace], kinds[o.Key.Kind], told[o.Key] = true, true, true
	}
	for o := range set.All() {
		if !told[o.Key] && before.Get(o.Key) != o {
			t.Fatalf("Since does not tell of %s", o.Key)
		}
	}
	for _, ns := range []string{"", "a", "b", "c"} {
		if (before.Namespace(ns) == set.Namespace(ns)) == changed[ns] {
			t.Fatalf("namespace %q changed %v, and the pointer does not say so", ns, changed[ns])
		}
	}
	if Same[*corev1.Service](before, set) == kinds["Service"] || (before == set) != (len(told) == 0) {
		t.Fatalf("changed %v, and the pointers do not say so", told)
	}
}

// Of makes its list once.
func TestOfDoesNotAllocate(t *testing.T) {
	set := ObjectsOf(service("a", "x", 80), service("b", "y", 80))
	cfg := &Config{Objects: set}
	n := testing.AllocsPerRun(100, func() {
		if len(Of[*corev1.Service](cfg)) != 2 || len(Of[*corev1.Service](set.Namespace("b"))) != 1 ||
			len(Of[*v1alpha1.Mesh](cfg)) != 0 {
			t.Error("not what was put")
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
	next := set.With(PutAll(&v1alpha1.MeshPeer{ObjectMeta: metav1.ObjectMeta{Name: "p"}}))
	if &Of[*corev1.Service](set)[0] != &Of[*corev1.Service](next)[0] {
		t.Error("a change of another kind made a new list")
	}
}

func TestOfEmptySets(t *testing.T) {
	var none *Objects
	var cfg *Config
	if none.Len() != 0 || none.Get(Key{}) != nil || none.Namespace("") != nil || len(Of[*corev1.Service](none)) != 0 ||
		len(Of[*corev1.Service](cfg)) != 0 || len(Of[*corev1.Service](none.Namespace(""))) != 0 ||
		none.With(Change{}) != nil ||
		(&Config{}).Mesh() != nil || Named[*corev1.Service](none, "a", "b") != nil {
		t.Error("an empty set holds something")
	}
}

// BenchmarkOneOfTenThousand changes one object of 10,000 in 50 namespaces.
func BenchmarkOneOfTenThousand(b *testing.B) {
	var all Change
	for n := range 10_000 {
		all.Put(NewObject(service(fmt.Sprintf("ns%d", n%50), fmt.Sprintf("s%d", n), 80), Origin{}))
	}
	set := (*Objects)(nil).With(all)
	var one [2]Change
	for i := range one {
		one[i].Put(NewObject(service("ns7", "s7", int32(81+i)), Origin{}))
	}
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		set = set.With(one[n%2])
		if len(Of[*corev1.Service](set.Namespace("ns7"))) != 200 {
			b.Fatal("something is missing")
		}
	}
}
