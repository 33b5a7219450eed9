package file

import (
	"time"

	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// entry is what one file says of one object. An object that cannot be decoded now stays as it last was.
type entry struct {
	key    snapshot.Key
	object *snapshot.Object  // nil if it was never valid
	broken *istioyaml.Broken // nil if it is valid now
	since  time.Time         // when the object was last valid, if that is not now
}

// settle derives a file's entries from its content and its previous entries. Every object that can be decoded counts.
// One that cannot stays as it was. loose are broken documents that close something although it is unknown which objects
// they are.
func settle(before []entry, f *istioyaml.File, now time.Time) (entries []entry, loose []*istioyaml.Broken) {
	entries = make([]entry, 0, len(f.Objects)+len(f.Broken))
	for _, o := range f.Objects {
		entries = append(entries, entry{key: o.Key, object: o, since: now})
	}
	if len(f.Broken) == 0 {
		return entries, nil
	}
	good := make(map[snapshot.Key]entry, len(before))
	for _, e := range before {
		if e.object != nil {
			good[e.key] = e
		}
	}
	said := make(map[snapshot.Key]bool, len(f.Objects))
	for _, o := range f.Objects {
		said[o.Key] = true
	}
	var unknown []*istioyaml.Broken
	for _, b := range f.Broken {
		if !b.WholeKey() {
			unknown = append(unknown, b)
			continue
		}
		if !said[b.Key] {
			said[b.Key] = true
			was := good[b.Key]
			entries = append(entries, entry{key: b.Key, object: was.object, broken: b, since: was.since})
		}
	}
	if len(unknown) == 0 {
		return entries, nil
	}
	return keepMissing(entries, unknown, before, said)
}

// keepMissing keeps objects that have disappeared while an undecodable document may be one of them. A document for
// which no such object is left closes.
func keepMissing(
	entries []entry, unknown []*istioyaml.Broken, before []entry, said map[snapshot.Key]bool,
) (all []entry, loose []*istioyaml.Broken) {
	accounted := map[*istioyaml.Broken]bool{}
	for _, e := range before {
		if e.object == nil || said[e.key] {
			continue
		}
		k, _ := kind.Named(e.key.Kind)
		var by *istioyaml.Broken
		for _, b := range unknown {
			if !b.MayBe(e.key) {
				continue
			}
			if by = b; k.Security() && !accounted[b] { // each stands for one
				accounted[b] = true
				break
			}
		}
		if by != nil {
			entries = append(entries, entry{key: e.key, object: e.object, broken: by, since: e.since})
		}
	}
	for _, b := range unknown {
		if !accounted[b] {
			loose = append(loose, b)
		}
	}
	return entries, loose
}
