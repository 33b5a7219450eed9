package file

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
)

// closed returns everything that is written but not in effect, sorted.
func (d *folder) closed() []snapshot.Closed {
	out := slices.Collect(maps.Values(d.objects.closed))
	for _, f := range d.telling {
		for _, b := range f.loose {
			if b.Security {
				out = append(out, b.Closed)
			}
		}
	}
	out = append(out, d.outOfSight()...)
	slices.SortFunc(out, func(a, b snapshot.Closed) int {
		if n := a.Key.Compare(b.Key); n != 0 {
			return n
		}
		return strings.Compare(fmt.Sprint(a.Origin.File, " ", a.Origin.Line),
			fmt.Sprint(b.Origin.File, " ", b.Origin.Line))
	})
	return out
}

// outOfSightReason is the reason, a clause, why an object in an unreadable file is closed.
const outOfSightReason = "its file cannot be read, or not all of it"

// outOfSight returns objects of security kinds that are known to be in a file which cannot be read and of which there
// is no copy.
func (d *folder) outOfSight() []snapshot.Closed {
	var out []snapshot.Closed
	for s, ghosts := range d.ages.ghosts {
		if kind.ClosedBy(s) == kind.Nothing || len(d.objects.claims[s]) > 0 {
			continue
		}
		for _, g := range ghosts {
			path := filepath.Join(d.root, g.file)
			f := d.files[path]
			hidden := f == nil && d.unreachable(path) || f != nil && f.current == nil ||
				f != nil && slices.ContainsFunc(f.loose, func(b *istioyaml.Broken) bool { return b.MayBe(g.key) })
			if g.until.IsZero() && hidden {
				out = append(out, snapshot.Closed{
					Key:    g.key,
					Origin: snapshot.Origin{Source: snapshot.SourceFile, File: path}, Reason: outOfSightReason,
				})
				break
			}
		}
	}
	return out
}
