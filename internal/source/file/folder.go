package file

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/times"
)

// How long a file that is being changed is given before it is read as it is.
const (
	emptied = 100 * time.Millisecond // empty: most editors and copy tools truncate a file before they write it
	moving  = time.Second            // written to continuously
	pause   = 5 * time.Millisecond
)

// folder is the state of one configuration folder: the last content of each file, and the result of all of them.
type folder struct {
	root     string
	validate istioyaml.Validator
	copies   *copies
	files    map[string]*file
	telling  map[string]*file // files with findings, or that close something
	ages     *ages
	objects  *objects
	looked   bool                       // the whole folder was scanned once
	trouble  map[string]finding.Finding // paths that cannot be read
	config   *snapshot.Config
}

// file is one configuration file.
type file struct {
	stamp   stamp
	sum     [sha256.Size]byte
	current *istioyaml.File     // as last read; nil while it cannot be read
	entries []entry             // the objects in it, and those that stay as they were
	loose   []*istioyaml.Broken // broken documents that close something and are no known object
	stayed  []finding.Finding   // about entries that stay as they were
	waiting time.Time           // since when it has been seen in the middle of a change
}

var errLongPath = fmt.Errorf("its path inside the folder is longer than %d bytes, of which each that is no letter or "+
	"digit of ASCII counts as three", state.MaxAgedFile)

// newFolder returns the state of a folder of which nothing has been read. dated means that its objects have ages.
func newFolder(root string, validate istioyaml.Validator, c *copies, a *ages, dated bool) *folder {
	return &folder{
		root: root, validate: validate, copies: c, files: map[string]*file{},
		telling: map[string]*file{}, ages: a, objects: newObjects(a, dated), trouble: map[string]finding.Finding{},
		config: &snapshot.Config{},
	}
}

// inside returns a path relative to the folder.
func (d *folder) inside(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, d.root), "/")
}

// unsettled reports whether a file's content is not completely known: it cannot be opened, or something in it cannot be
// decoded.
func (d *folder) unsettled(file string) bool {
	path := filepath.Join(d.root, file)
	if f := d.files[path]; f != nil && (f.current == nil || len(f.loose) > 0 || !f.waiting.IsZero()) {
		return true
	}
	return d.unreachable(path)
}

// unreachable reports whether a path, or a folder above it, cannot be accessed.
func (d *folder) unreachable(path string) bool {
	if len(d.trouble) == 0 {
		return false
	}
	for p := path; ; p = filepath.Dir(p) {
		if _, ok := d.trouble[p]; ok {
			return true
		}
		if p == filepath.Dir(p) {
			return false
		}
	}
}

// refreshAll scans all files and reads those that changed or may have.
func (d *folder) refreshAll(ctx context.Context, dirty map[string]bool, now time.Time) (listing, unfinished) {
	l := scan(d.root)
	clear(d.trouble)
	for path, err := range l.errs {
		d.trouble[path] = d.unread(path, err)
	}
	if d.vanished(l) {
		d.trouble[d.root] = d.vanishedFinding(l)
		d.conclude(ctx, nil, now)
		return l, unfinished{files: map[string]bool{}}
	}
	var paths []string
	var gone []update
	for path, st := range l.files {
		if f := d.files[path]; f == nil || f.stamp != st || dirty[path] || !f.waiting.IsZero() {
			paths = append(paths, path)
		}
	}
	for path := range d.files {
		if _, ok := l.files[path]; !ok && !l.unknown(path) {
			gone = append(gone, d.remove(path))
		}
	}
	again := d.refresh(ctx, paths, append(gone, d.recallHidden(l)...), now)
	d.looked = true
	d.ages.forget(now, d.unsettled)
	d.keepAges(ctx)
	if len(l.errs) == 0 {
		d.copies.sweep(l.files)
	}
	return l, again
}

// vanished reports whether none of the previous files is left, as when the folder is unmounted.
func (d *folder) vanished(l listing) bool {
	return len(d.files) > 0 && len(l.files) == 0
}

// unfinished is what must be checked again soon.
type unfinished struct {
	files map[string]bool // being changed
	all   bool            // the whole folder: a file is missing, and only a scan decides that it is gone
}

// refresh reads the given files and merges their content.
func (d *folder) refresh(ctx context.Context, paths []string, updates []update, now time.Time) unfinished {
	slices.Sort(paths)
	again := unfinished{files: map[string]bool{}}
	for _, path := range paths {
		text, st, err := read(path)
		if errors.Is(err, fs.ErrNotExist) {
			again.all = true
			continue
		}
		if len(url.PathEscape(d.inside(path))) > state.MaxAgedFile { // its age could not be stored
			err = errLongPath
		}
		u, settled := d.take(path, text, st, err, now)
		if !settled {
			again.files[path] = true
		}
		if u != nil {
			updates = append(updates, *u)
		}
	}
	d.conclude(ctx, updates, now)
	return again
}

// take processes a file that was read. settled is false if the file seems to be in the middle of a change.
func (d *folder) take(path string, text []byte, st stamp, err error, now time.Time) (u *update, settled bool) {
	f := d.files[path]
	if f == nil {
		f = &file{}
		d.files[path] = f
	}
	if err != nil {
		d.trouble[path] = d.unread(path, err)
		return d.recall(path, f), true
	}
	delete(d.trouble, path)
	if f.inMotion(text, st, now, d.looked) {
		return nil, false
	}
	sum := sha256.Sum256(text)
	f.stamp = st
	if f.current != nil && f.sum == sum {
		return nil, true
	}
	return d.decode(path, f, text, sum, now), true
}

// inMotion reports whether a file seems to be in the middle of a change, so that its last content should stay a little
// longer. This includes new files, so that half a policy is not taken for a broken one.
func (f *file) inMotion(text []byte, st stamp, now time.Time, running bool) bool {
	var wait time.Duration
	if age := now.Sub(st.mtime); (len(f.entries) > 0 || running && f.current == nil) && age >= 0 && age < pause {
		wait = moving
	}
	if len(f.entries) > 0 && len(text) == 0 {
		wait = emptied
	}
	if wait > 0 && f.waiting.IsZero() {
		f.waiting = now
	}
	if wait > 0 && now.Sub(f.waiting) < wait {
		return true
	}
	f.waiting = time.Time{}
	return false
}

// decode takes over a file's new content.
func (d *folder) decode(path string, f *file, text []byte, sum [sha256.Size]byte, now time.Time) *update {
	u := &update{file: d.inside(path), before: f.entries}
	next := istioyaml.Decode(path, text, d.validate, f.current)
	last := f.entries
	if f.current == nil && len(last) == 0 && len(next.Broken) > 0 {
		last = d.remembered(path, nil)
	}
	f.current, f.sum = next, sum
	f.entries, f.loose = settle(last, next, now)
	f.stayed = stayed(path, f.entries)
	u.then = f.entries
	d.keep(path, f, text)
	d.track(path, f)
	return u
}

// track keeps telling up to date.
func (d *folder) track(path string, f *file) {
	if f.current != nil && len(f.current.Findings) > 0 || len(f.stayed)+len(f.loose) > 0 {
		d.telling[path] = f
	} else {
		delete(d.telling, path)
	}
}

// keep stores a copy of what the file means, for a start at which part of it is still broken.
func (d *folder) keep(path string, f *file, text []byte) {
	if d.copies.dir == "" {
		return
	}
	if len(f.current.Broken) == 0 {
		d.copies.keep(path, text)
		return
	}
	read, stayed := map[snapshot.Key]bool{}, map[snapshot.Key]bool{}
	for _, e := range f.entries {
		switch {
		case e.object == nil:
		case e.broken == nil:
			read[e.key] = true
		default:
			stayed[e.key] = true
		}
	}
	if len(read)+len(stayed) == 0 {
		d.copies.forget(path) // the copy describes objects that were removed
		return
	}
	before, _ := d.copies.recall(path)
	d.copies.keep(path, slices.Concat(
		istioyaml.Pick(text, func(k snapshot.Key) bool { return read[k] }),
		istioyaml.Pick(before, func(k snapshot.Key) bool { return stayed[k] }),
	))
}

// remembered returns what a file meant before this process, as far as it is known. by is the broken document on account
// of which it counts.
func (d *folder) remembered(path string, by *istioyaml.Broken) []entry {
	text, since := d.copies.recall(path)
	if text == nil {
		return nil
	}
	entries, _ := settle(nil, istioyaml.Decode(path, text, d.validate, nil), since)
	for i := range entries {
		if by != nil && entries[i].broken == nil {
			entries[i].broken = by
		}
	}
	return entries
}

// recall restores an unreadable file as it was before this process.
func (d *folder) recall(path string, f *file) *update {
	if f.current != nil || len(f.entries) > 0 {
		return nil
	}
	f.entries = d.remembered(path,
		&istioyaml.Broken{Closed: snapshot.Closed{
			Origin: snapshot.Origin{File: path},
			Reason: "its file cannot be read",
		}})
	f.stayed = stayed(path, f.entries)
	d.track(path, f)
	return &update{file: d.inside(path), then: f.entries}
}

// recallHidden restores files that cannot even be accessed and are known only from copies.
func (d *folder) recallHidden(l listing) []update {
	hidden := map[string]bool{}
	for path := range l.errs {
		hidden[path] = isConfig(path)
	}
	if len(l.errs) > 0 {
		for _, ghosts := range d.ages.ghosts {
			for _, g := range ghosts {
				path := filepath.Join(d.root, g.file)
				hidden[path] = g.until.IsZero() && l.unknown(path)
			}
		}
	}
	var out []update
	for _, path := range slices.Sorted(maps.Keys(hidden)) {
		if hidden[path] && d.files[path] == nil {
			d.files[path] = &file{}
			out = append(out, *d.recall(path, d.files[path]))
		}
	}
	return out
}

func (d *folder) remove(path string) update {
	u := update{file: d.inside(path), before: d.files[path].entries}
	delete(d.files, path)
	delete(d.telling, path)
	d.copies.forget(path)
	return u
}

// conclude merges updates and builds a new configuration if anything differs. Ages are stored before it takes effect.
func (d *folder) conclude(ctx context.Context, updates []update, now time.Time) {
	d.objects.apply(updates, now, d.unsettled)
	d.objects.redate(d.ages.save(ctx))
	d.configure()
}

// keepAges stores new ages. If another control plane has seen an object first, its age counts.
func (d *folder) keepAges(ctx context.Context) {
	if d.ages.failing {
		return // just now
	}
	if otherwise := d.ages.save(ctx); len(otherwise) > 0 {
		d.objects.redate(otherwise)
		d.configure()
	}
}

// reloadAges applies the stored ages, after another control plane has removed some.
func (d *folder) reloadAges(ctx context.Context, all []state.ConfigAge) {
	kept := make(map[place]time.Time, len(all))
	for _, k := range all {
		kept[place{k.Key, k.File}] = k.FirstSeen
		d.ages.latest = times.Later(d.ages.latest, k.FirstSeen)
	}
	d.objects.redate(d.objects.compare(kept))
	d.objects.redate(d.ages.save(ctx))
	d.configure()
}

// configure builds a new configuration if anything differs.
func (d *folder) configure() {
	closed, findings := d.closed(), d.findings()
	if d.objects.inForce == d.config.Objects && slices.Equal(findings, d.config.Findings) &&
		slices.EqualFunc(closed, d.config.Closed, snapshot.Closed.Equal) {
		return
	}
	d.config = &snapshot.Config{Objects: d.objects.inForce, Closed: closed, Findings: findings}
}

// offline returns the state of a folder that is read once: nothing is stored, and its objects have no ages.
func offline(dir string, validate istioyaml.Validator) *folder {
	log := slog.New(slog.DiscardHandler)
	a, _ := openAges(context.Background(), nil, log) // nothing is read
	return newFolder(dir, validate, openCopies(dir, "", log), a, false)
}
