package file

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/times"
)

// grace is how long an object may be missing and still keep its age: a file is moved, or rewritten by a tool.
const grace = time.Minute

// handover is the same if another object of its name exists, which would otherwise lose to any newcomer.
const handover = 2 * time.Second

// saveWait is how long a configuration waits until its ages are stored: a policy must not wait for an unavailable
// database. They may be stored nevertheless, and storing them again changes nothing.
const saveWait = 2 * time.Second

// Ages stores when objects were first seen, for all control planes of a mesh: state.ConfigAges.
type Ages interface {
	ConfigAges(ctx context.Context) ([]state.ConfigAge, error)
	KeepConfigAges(ctx context.Context, c state.AgeChange) (kept []state.ConfigAge, err error)
}

// ages assigns each object its age. An object keeps it while it is in the same file, and when it moves to another.
type ages struct {
	kept Ages // nil: not stored beyond this process
	log  *slog.Logger

	latest  time.Time                // no two changes have the same time
	ghosts  map[snapshot.Key][]ghost // by slot: objects that were seen and are missing, oldest first
	unsaved map[place]unsaved
	failing bool
}

// unsaved is what has to be stored about an object in a file.
type unsaved struct {
	seen  time.Time // zero: it is gone
	known bool      // it was seen before
}

// place is one object in one file.
type place struct {
	key  snapshot.Key
	file string
}

// ghost is an object that is missing, or whose file has not been read yet.
type ghost struct {
	place
	seen  time.Time
	until time.Time // when it is forgotten; zero while its file may still contain it
}

// openAges loads the stored ages.
func openAges(ctx context.Context, kept Ages, log *slog.Logger) (*ages, error) {
	a := &ages{kept: kept, log: log, ghosts: map[snapshot.Key][]ghost{}, unsaved: map[place]unsaved{}}
	if kept == nil {
		return a, nil
	}
	all, err := kept.ConfigAges(ctx)
	if err != nil {
		return a, err
	}
	for _, k := range all {
		s := slot(k.Key)
		a.ghosts[s] = append(a.ghosts[s], ghost{place: place{k.Key, k.File}, seen: k.FirstSeen})
		a.latest = times.Later(a.latest, k.FirstSeen)
	}
	return a, nil
}

// change returns the time of a change. All its new objects have that age, unless they compete.
func (a *ages) change(now time.Time) time.Time {
	now = now.UTC().Truncate(time.Microsecond)
	return times.Later(now, a.latest.Add(time.Microsecond))
}

// gone records that a claim has disappeared.
func (a *ages) gone(s snapshot.Key, c claim, now time.Time) {
	a.ghosts[s] = append(a.ghosts[s], ghost{place: c.place, seen: c.seen, until: now.Add(grace)})
	slices.SortStableFunc(a.ghosts[s], func(x, y ghost) int { return x.seen.Compare(y.seen) })
}

// admit assigns ages to the new claims of a slot: the age of the same object in the same file, of another object in the
// same file (a renamed Mesh), of one that has left its file, or else the time of the change. unsettled reports whether
// a file's content is unknown as yet. contested means that there is another claim.
func (a *ages) admit(
	s snapshot.Key, fresh []*claim, contested bool, now, change time.Time, unsettled func(file string) bool,
) {
	moved := func(g ghost) bool {
		if g.until.IsZero() {
			return !unsettled(g.file)
		}
		left := g.until.Sub(now)
		return left >= 0 && (!contested || left >= grace-handover)
	}
	for _, fits := range []func(c *claim, g ghost) bool{
		func(c *claim, g ghost) bool { return c.place == g.place },
		func(c *claim, g ghost) bool { return c.file == g.file },
		func(_ *claim, g ghost) bool { return moved(g) },
	} {
		for _, c := range fresh {
			if !c.seen.IsZero() {
				continue
			}
			i := latest(a.ghosts[s], func(g ghost) bool { return fits(c, g) })
			if i < 0 {
				continue
			}
			g := a.ghosts[s][i]
			c.seen = g.seen
			a.drop(s, i)
			if g.place != c.place {
				a.unsaved[g.place] = unsaved{}
			}
			// in the same place nothing has to be stored again, unless another control plane has removed it meanwhile
			if g.place != c.place || !g.until.IsZero() {
				a.keep(c.place, c.seen)
			}
		}
	}
	n := 0
	for _, c := range fresh {
		if c.seen.IsZero() {
			c.seen = change.Add(time.Duration(n) * time.Microsecond)
			n++
			a.latest = times.Later(a.latest, c.seen)
			a.unsaved[c.place] = unsaved{seen: c.seen}
		}
	}
}

// keep stores the age of an object that was seen before. An object that has no age yet remains new.
func (a *ages) keep(p place, seen time.Time) {
	if was := a.unsaved[p]; was.seen.IsZero() {
		a.unsaved[p] = unsaved{seen: seen, known: true}
	}
}

// latest returns the index of the ghost that disappeared last (ghosts are sorted, oldest first), or -1 if none fits.
// Ghosts that disappeared at an unknown time come first.
func latest(ghosts []ghost, fits func(ghost) bool) int {
	at := -1
	for i, g := range ghosts {
		if fits(g) && (at < 0 || !ghosts[at].until.IsZero() && (g.until.IsZero() || g.until.After(ghosts[at].until))) {
			at = i
		}
	}
	return at
}

func (a *ages) drop(s snapshot.Key, i int) {
	if a.ghosts[s] = slices.Delete(a.ghosts[s], i, i+1); len(a.ghosts[s]) == 0 {
		delete(a.ghosts, s)
	}
	if len(a.ghosts) == 0 {
		a.ghosts = map[snapshot.Key][]ghost{} // see unsaved in save
	}
}

// forget drops ghosts that have been gone for long. unsettled reports whether a file's content is unknown as yet.
func (a *ages) forget(now time.Time, unsettled func(file string) bool) {
	for s, ghosts := range a.ghosts {
		for i := len(ghosts) - 1; i >= 0; i-- {
			switch g := &ghosts[i]; {
			case g.until.IsZero() && !unsettled(g.file):
				g.until = now.Add(grace)
			case !g.until.IsZero() && now.After(g.until):
				a.unsaved[g.place] = unsaved{}
				a.drop(s, i)
			}
		}
	}
}

// save stores new ages, and returns those for which another age is stored. Ages that cannot be stored count anyway.
func (a *ages) save(ctx context.Context) (otherwise map[place]time.Time) {
	if a.kept == nil {
		clear(a.unsaved)
	}
	if len(a.unsaved) == 0 {
		return nil
	}
	var change state.AgeChange
	for _, p := range slices.SortedFunc(maps.Keys(a.unsaved), place.compare) {
		u := a.unsaved[p]
		one := state.ConfigAge{Key: p.key, File: p.file, FirstSeen: u.seen}
		switch {
		case u.seen.IsZero():
			change.Gone = append(change.Gone, one)
		case u.known:
			change.Known = append(change.Known, one)
		default:
			change.New = append(change.New, one)
		}
	}
	kept, err := state.Within(saveWait, func() ([]state.ConfigAge, error) { return a.kept.KeepConfigAges(ctx, change) })
	if err != nil {
		if !a.failing {
			a.log.Warn("which object was first is not kept: other control planes, and this one after a restart, may "+
				"say otherwise", "error", err)
		}
		a.failing = true
		return nil
	}
	otherwise = map[place]time.Time{}
	for _, k := range kept {
		p := place{k.Key, k.File}
		if !k.FirstSeen.Equal(a.unsaved[p].seen) {
			otherwise[p] = k.FirstSeen
		}
		a.latest = times.Later(a.latest, k.FirstSeen)
	}
	a.failing = false
	a.unsaved = map[place]unsaved{} // a map keeps the size of its largest content
	return otherwise
}

func (p place) compare(q place) int { return cmp.Or(p.key.Compare(q.key), cmp.Compare(p.file, q.file)) }
