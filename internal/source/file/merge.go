package file

import (
	"fmt"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// objects merges what all files say. If an object is written twice, the oldest claim counts and the others wait.
type objects struct {
	ages      *ages
	dated     bool // the configuration records when objects were first seen
	claims    map[snapshot.Key][]claim
	conflicts map[snapshot.Key]bool
	closed    map[snapshot.Key]snapshot.Closed // by slot: the claim that holds it and is not in effect
	inForce   *snapshot.Objects
}

// claim is one file's definition of an object.
type claim struct {
	place
	object *snapshot.Object // nil if it was never valid
	broken *istioyaml.Broken
	seen   time.Time
}

// pos returns the claim's position.
func (c claim) pos() snapshot.Origin {
	if c.object != nil {
		return c.object.Origin
	}
	return c.broken.Origin
}

func newObjects(a *ages, dated bool) *objects {
	return &objects{
		ages: a, dated: dated, claims: map[snapshot.Key][]claim{}, conflicts: map[snapshot.Key]bool{},
		closed: map[snapshot.Key]snapshot.Closed{},
	}
}

// slot returns the key for which objects compete. All Mesh objects share one.
func slot(k snapshot.Key) snapshot.Key {
	if kind.IsSingleton(k.Kind) {
		return snapshot.Key{Kind: k.Kind}
	}
	return k
}

// update is a file's content before and after a change.
type update struct {
	file         string // relative to the folder
	before, then []entry
}

// trim omits objects at the beginning and end that are the same before and after. No key is in both parts, except that
// all Mesh objects share a slot, so those stay.
func (u update) trim() update {
	same := func(a, b entry) bool {
		return a.object == b.object && a.broken == b.broken && !kind.IsSingleton(a.key.Kind)
	}
	for len(u.before) > 0 && len(u.then) > 0 && same(u.before[0], u.then[0]) {
		u.before, u.then = u.before[1:], u.then[1:]
	}
	for b, t := len(u.before)-1, len(u.then)-1; b >= 0 && t >= 0 && same(u.before[b], u.then[t]); b, t = b-1, t-1 {
		u.before, u.then = u.before[:b], u.then[:t]
	}
	return u
}

// apply applies updates.
func (o *objects) apply(updates []update, now time.Time, unsettled func(file string) bool) {
	touched := map[snapshot.Key]claim{} // slot → previous holder
	for _, u := range updates {
		o.replace(u, touched, now)
	}
	arrived := o.ages.change(now)
	for s := range touched {
		o.admit(s, now, arrived, unsettled)
	}
	o.settle(touched)
}

// redate sets the stored ages of objects.
func (o *objects) redate(kept map[place]time.Time) {
	touched := map[snapshot.Key]claim{}
	for p, seen := range kept {
		s := slot(p.key)
		claims := o.claims[s]
		i := slices.IndexFunc(claims, func(c claim) bool { return c.place == p })
		if i < 0 {
			continue
		}
		if _, ok := touched[s]; !ok {
			touched[s] = claims[0]
		}
		claims[i].seen = seen
	}
	o.settle(touched)
}

// compare returns the objects whose stored age differs, and stores those that have none.
func (o *objects) compare(kept map[place]time.Time) (otherwise map[place]time.Time) {
	otherwise = map[place]time.Time{}
	for _, claims := range o.claims {
		for _, c := range claims {
			seen, known := kept[c.place]
			switch {
			case !known:
				o.ages.keep(c.place, c.seen)
			case !seen.Equal(c.seen):
				otherwise[c.place] = seen
			}
		}
	}
	return otherwise
}

// settle applies the claims that now hold each slot. touched maps slots to their previous holders.
func (o *objects) settle(touched map[snapshot.Key]claim) {
	var change snapshot.Change
	for s, was := range touched {
		o.order(s)
		var is claim
		if c := o.claims[s]; len(c) > 0 {
			is = c[0]
		}
		if was == is {
			continue
		}
		o.closing(s, is)
		for _, k := range []snapshot.Key{was.key, is.key} {
			if object := o.inEffect(k); object != nil {
				change.Put(object)
			} else {
				change.Remove(k)
			}
		}
	}
	o.inForce = o.inForce.With(change)
}

// replace replaces a file's claims. New claims have no age yet.
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

// admit assigns ages to a slot's new claims.
func (o *objects) admit(s snapshot.Key, now, change time.Time, unsettled func(file string) bool) {
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
}

// order sorts a slot's claims by age.
func (o *objects) order(s snapshot.Key) {
	claims := o.claims[s]
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

// closing records whether a slot is held by something that is not in effect.
func (o *objects) closing(s snapshot.Key, c claim) {
	delete(o.closed, s)
	if c.object != nil || c.broken == nil || kind.ClosedBy(s) == kind.Nothing {
		return
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

// inEffect returns the object of a key, or nil if there is none or another one holds its slot.
func (o *objects) inEffect(k snapshot.Key) *snapshot.Object {
	c := o.claims[slot(k)]
	if len(c) == 0 || c[0].key != k || c[0].object == nil {
		return nil
	}
	object := *c[0].object
	object.Origin.FirstSeen = o.age(c[0])
	return &object
}

// findings reports objects that wait behind another of the same name.
func (o *objects) findings() []finding.Finding {
	var out []finding.Finding
	for s := range o.conflicts {
		claims := o.claims[s]
		first := claims[0]
		for _, c := range claims[1:] {
			at := c.pos()
			code, what := finding.Code("ISM-SRC04"), "the object is also written"
			if kind.IsSingleton(s.Kind) {
				code, what = "ISM-SRC05", "there is already "+first.key.String()
			}
			f := finding.New(code, c.key, "metadata.name", fmt.Sprintf(
				"%s at %s:%d, which is older and stays in effect; this one is not used", what, first.pos().File,
				first.pos().Line))
			out = append(out, f.At(at.File, at.LineOf("metadata.name")))
		}
	}
	return out
}
