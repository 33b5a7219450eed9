package hostile

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	kinds "isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/node/envoyproc"
)

// TestSeeds: the scene is sound, so that what is wrong with a hostile object is its own.
func TestSeeds(t *testing.T) {
	for _, k := range kinds.All {
		for i, doc := range parsed[k.Name] {
			o := objectOf(k.Name, doc, "nothing")
			if !o.accepted() {
				t.Errorf("seed %d of %s is refused", i, k.Name)
			}
			rs := resources(t, []object{o}, 0)
			if len(rs) < 15 {
				t.Errorf("seed %d of %s makes %d resources", i, k.Name, len(rs))
			}
			for _, r := range rs {
				if err := constraints(r); err != nil {
					t.Errorf("seed %d of %s: %s: %v", i, k.Name, r.Name, err)
				}
			}
		}
	}
}

// change is one value to put into a seed.
type change struct {
	kind  string
	seed  map[string]any
	leaf  leaf
	value any
}

func (c change) object() object {
	return objectOf(c.kind, with(c.seed, c.leaf.path, c.value), fmt.Sprintf("%s = %.200q", c.leaf, fmt.Sprint(c.value)))
}

// changes are all that the schema of a kind gives rise to.
func changes(kind string) iter.Seq[change] {
	return func(yield func(change) bool) {
		for _, l := range leavesOf(kind) {
			for _, seed := range standing(kind, l) {
				old, _ := at(seed, l.path)
				for v := range valuesFor(l, old) {
					if !yield(change{kind, seed, l, v}) {
						return
					}
				}
			}
		}
	}
}

// standing are the seeds of a kind in which a leaf stands; the first one where it stands in none.
func standing(kind string, l leaf) (out []map[string]any) {
	for _, seed := range parsed[kind] {
		if _, depth := at(seed, l.path); depth == len(l.path) {
			out = append(out, seed)
		}
	}
	if len(out) == 0 {
		return parsed[kind][:1]
	}
	return out
}

// sample takes one of n changes, evenly and always the same; of metadata, which all kinds share, one of 20 n.
func sample(kind string, n int) iter.Seq[change] {
	return func(yield func(change) bool) {
		r := rand.New(rand.NewPCG(1, 2))
		for c := range changes(kind) {
			of := n
			if c.leaf.path[0] == "metadata" {
				of *= 20
			}
			if r.IntN(of) == 0 && !yield(c) {
				return
			}
		}
	}
}

// sieve keeps the objects that are accepted and of which an Envoy is told something that no other one makes. On the way
// all of them, those that are refused too, are held to the constraints that Envoy's API writes down, and to not
// panicking.
type sieve struct {
	seen                  map[[32]byte]bool
	read, taken, distinct int
}

func (s *sieve) keeps(t *testing.T, o object) bool {
	s.read++
	ok := o.accepted()
	if ok {
		s.taken++
	} else if s.read%20 > 0 {
		return false // what is refused closes what it selects, or is as if it were not there: that is soon seen
	}
	rs := resources(t, []object{o}, 0)
	sum := fingerprint(rs)
	if s.seen[sum] {
		return false
	}
	s.seen[sum] = true
	for _, r := range rs {
		if err := constraints(r); err != nil {
			t.Errorf("Envoy's API forbids what comes of %s\n%s: %s", o, r.Name, clip(err.Error()))
			return false
		}
	}
	s.distinct++
	return true
}

// distinct are the objects of a sample that a sieve keeps.
func distinct(t *testing.T, kind string, n int) (out []object) {
	s := sieve{seen: map[[32]byte]bool{}}
	for c := range sample(kind, n) {
		if o := c.object(); s.keeps(t, o) {
			out = append(out, o)
		}
	}
	t.Logf("%d objects, %d accepted, %d distinct", s.read, s.taken, s.distinct)
	return out
}

func clip(s string) string {
	if len(s) > 600 {
		return s[:300] + " … " + s[len(s)-300:]
	}
	return s
}

// density is the share of a kind's changes that the tests try: 1/n. The values of policies reach Envoy as they are, so
// that each makes something new to ask about.
func density(kind string) int {
	if kind == "AuthorizationPolicy" {
		return 100
	}
	return 15
}

// TestConstraints is what can be told of hostile objects without an Envoy.
func TestConstraints(t *testing.T) {
	for _, k := range kinds.All {
		t.Run(k.Name, func(t *testing.T) { distinct(t, k.Name, 5*density(k.Name)) })
	}
}

// FuzzObjects tries objects in which several values are replaced, by a seed's chance, and asks an Envoy where there is
// one.
func FuzzObjects(f *testing.F) {
	for n := range uint64(8) {
		f.Add(n)
	}
	binary, err := envoyproc.Locate("../../.cache")
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 3))
		kind := kinds.All[r.IntN(len(kinds.All))].Name
		s, objects := sieve{seen: map[[32]byte]bool{}}, []object{}
		for range 60 {
			if o := chance(r, kind); s.keeps(t, o) {
				objects = append(objects, o)
			}
		}
		if err == nil {
			newJudge(t, binary).judge(objects)
		}
	})
}

// chance is an object with up to three values replaced, perhaps beside another such one.
func chance(r *rand.Rand, kind string) object {
	doc, what := replaced(r, kind)
	o := objectOf(kind, doc, what)
	if k := kinds.All[r.IntN(len(kinds.All))]; k.Namespaced && r.IntN(2) == 0 {
		doc, _ := replaced(r, k.Name)
		o.beside = objectOf(k.Name, with(doc, []string{"metadata", "name"}, "second"), "").text
	}
	return o
}

func replaced(r *rand.Rand, kind string) (doc any, what string) {
	seeds, leaves := parsed[kind], leavesOf(kind)
	doc = seeds[r.IntN(len(seeds))]
	for range 1 + r.IntN(3) {
		l := leaves[r.IntN(len(leaves))]
		if l.path[0] == "metadata" && r.IntN(10) > 0 {
			continue
		}
		old, _ := at(doc, l.path)
		values := slices.Collect(valuesFor(l, old))
		v := values[r.IntN(len(values))]
		doc = with(doc, l.path, v)
		what += fmt.Sprintf("%s = %.80q; ", l, fmt.Sprint(v))
	}
	return doc, what
}
