package hostile

import (
	"iter"
	"math/rand/v2"
	"testing"

	"isthmus.dev/isthmus/internal/kind"
)

// TestSeeds: the scene is sound, so that what is wrong with a hostile object is its own.
func TestSeeds(t *testing.T) {
	for _, k := range kind.All {
		for i, doc := range parsed[k.Name] {
			o := objectOf(k.Name, doc, leaf{path: []string{"apiVersion"}}, doc["apiVersion"])
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

func (c change) object() object { return objectOf(c.kind, c.seed, c.leaf, c.value) }

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

// distinct are the objects of a sample that are accepted and of which an Envoy is told something that no other one makes.
// On the way all of them are held to the constraints that Envoy's API writes down.
func distinct(t *testing.T, kind string, n int) (out []object) {
	seen := map[[32]byte]bool{}
	read, taken := 0, 0
	for c := range sample(kind, n) {
		read++
		o := c.object()
		if !o.accepted() {
			continue
		}
		taken++
		rs := resources(t, []object{o}, 0)
		if sum := fingerprint(rs); seen[sum] {
			continue
		} else {
			seen[sum] = true
		}
		sound := true
		for _, r := range rs {
			if err := constraints(r); err != nil {
				t.Errorf("Envoy's API forbids what comes of %s\n%s: %s", o, r.Name, clip(err.Error()))
				sound = false
				break
			}
		}
		if sound {
			out = append(out, o)
		}
	}
	t.Logf("%d objects, %d accepted, %d distinct", read, taken, len(out))
	return out
}

func clip(s string) string {
	if len(s) > 600 {
		return s[:300] + " … " + s[len(s)-300:]
	}
	return s
}

// TestConstraints is what can be told of hostile objects without an Envoy.
func TestConstraints(t *testing.T) {
	for _, k := range kind.All {
		t.Run(k.Name, func(t *testing.T) {
			t.Parallel()
			distinct(t, k.Name, 200)
		})
	}
}
