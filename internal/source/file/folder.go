package file

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/snapshot"
)

// How long a file in the middle of a change is given before it is taken as it is.
const (
	emptied = 100 * time.Millisecond // without any byte: most editors and copies empty a file before they fill it
	moving  = time.Second            // written to without a pause
	pause   = 5 * time.Millisecond
)

// folder is the state of one configuration folder: what each file last said and what all of them mean together.
type folder struct {
	root     string
	validate istioyaml.Validator
	copies   *copies
	files    map[string]*file
	objects  *objects
	trouble  map[string]finding.Finding // paths that cannot be read
	config   *snapshot.Config
}

// file is one configuration file.
type file struct {
	stamp    stamp
	sum      [sha256.Size]byte
	current  *istioyaml.File // as last read
	good     *istioyaml.File // as last read without errors, nil before that
	goodSum  [sha256.Size]byte
	waiting  time.Time // since when it is seen in the middle of a change
	goodTime time.Time
}

func newFolder(root string, validate istioyaml.Validator, c *copies) *folder {
	f := &folder{root: root, validate: validate, copies: c, files: map[string]*file{}, objects: newObjects(), trouble: map[string]finding.Finding{}}
	f.config = f.objects.config
	return f
}

// refreshAll looks at every file and reads those that changed, or may have. It returns the files to look at again soon.
func (d *folder) refreshAll(dirty map[string]bool, now time.Time) (listing, map[string]bool) {
	l := scan(d.root)
	clear(d.trouble)
	for path, err := range l.errs {
		d.trouble[path] = d.unread(path, err)
	}
	if d.vanished(l) {
		d.trouble[d.root] = d.vanishedFinding(l)
		d.conclude(nil)
		return l, map[string]bool{}
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
	again := d.refresh(paths, gone, now)
	if len(l.errs) == 0 {
		d.copies.sweep(l.files)
	}
	return l, again
}

// vanished says that no file is left of what was there, as when the folder was unmounted.
func (d *folder) vanished(l listing) bool {
	return len(d.files) > 0 && len(l.files) == 0
}

func (d *folder) vanishedFinding(l listing) finding.Finding {
	f := finding.Finding{
		Code: CodeVanished, File: d.root, Message: "all configuration files are gone; the last good state stays in effect",
		Remedy: "bring the files back; to really have no configuration, leave one file that holds only a comment",
	}
	if err := l.errs[d.root]; err != nil {
		f.Message = fmt.Sprintf("the configuration folder cannot be read (%v); the last good state stays in effect", cause(err))
		f.Remedy = "bring the folder back, or make it readable"
	}
	return f
}

// refresh reads the given files and merges what they say. It returns those to look at again soon, with the whole folder:
// only a listing decides that a file is gone.
func (d *folder) refresh(paths []string, updates []update, now time.Time) map[string]bool {
	slices.Sort(paths)
	again := map[string]bool{}
	for _, path := range paths {
		u, settled := d.reread(path, now)
		if !settled {
			again[path] = true
		}
		if u != nil {
			updates = append(updates, *u)
		}
	}
	d.conclude(updates)
	return again
}

// reread reads one file. settled is false if the file seems to be in the middle of a change.
func (d *folder) reread(path string, now time.Time) (u *update, settled bool) {
	text, st, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false
	}
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
	if f.inMotion(text, st, now) {
		return nil, false
	}
	sum := sha256.Sum256(text)
	f.stamp = st
	if f.current != nil && f.sum == sum {
		return nil, true
	}
	return d.decode(path, f, text, sum, now), true
}

// inMotion says that a file seems to be in the middle of a change and what it last said should stand a little longer.
func (f *file) inMotion(text []byte, st stamp, now time.Time) bool {
	var wait time.Duration
	if f.good != nil && len(f.good.Objects) > 0 {
		if age := now.Sub(st.mtime); age >= 0 && age < pause {
			wait = moving
		}
		if len(text) == 0 {
			wait = emptied
		}
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

// decode takes over what a file now says, unless it is broken.
func (d *folder) decode(path string, f *file, text []byte, sum [sha256.Size]byte, now time.Time) *update {
	f.sum = sum
	if f.good != nil && f.goodSum == sum {
		f.current = f.good
		return nil
	}
	f.current = istioyaml.Decode(path, text, d.validate, f.good)
	if f.current.Broken() {
		return d.recall(path, f)
	}
	d.copies.keep(path, text, sum)
	u := &update{file: path, then: f.current.Objects}
	if f.good != nil {
		u.before = f.good.Objects
	}
	f.good, f.goodSum, f.goodTime = f.current, sum, now
	return u
}

// recall takes a file that was never good here as it was when it last was, before this process.
func (d *folder) recall(path string, f *file) *update {
	if f.good != nil {
		return nil
	}
	text, since := d.copies.recall(path)
	if text == nil {
		return nil
	}
	good := istioyaml.Decode(path, text, d.validate, nil)
	if good.Broken() { // what was right once may be refused by now
		return nil
	}
	f.good, f.goodSum, f.goodTime = good, sha256.Sum256(text), since
	return &update{file: path, then: good.Objects}
}

func (d *folder) remove(path string) update {
	u := update{file: path}
	if f := d.files[path]; f.good != nil {
		u.before = f.good.Objects
	}
	delete(d.files, path)
	d.copies.forget(path)
	return u
}

// conclude merges updates and makes a new configuration if anything is different.
func (d *folder) conclude(updates []update) {
	changed := d.objects.apply(updates)
	findings := d.findings()
	if !changed && slices.Equal(findings, d.config.Findings) {
		return
	}
	next := *d.objects.config
	next.Findings = findings
	d.config = &next
}

func (d *folder) findings() []finding.Finding {
	out := slices.Collect(maps.Values(d.trouble))
	for path, f := range d.files {
		if f.current == nil {
			continue
		}
		out = append(out, f.current.Findings...)
		if f.good != nil && f.good != f.current {
			out = append(out, kept(path, f))
		}
	}
	out = append(out, d.objects.findings()...)
	finding.Sort(out)
	return out
}

func kept(path string, f *file) finding.Finding {
	return finding.Finding{
		Code: CodeKept, Severity: finding.Warning, File: path,
		Message: fmt.Sprintf("the file has errors, so nothing in it takes effect; its %d objects stay as they were at %s", len(f.good.Objects), f.goodTime.UTC().Format(time.RFC3339)),
		Remedy:  "mend the errors of this file",
	}
}

func (d *folder) unread(path string, err error) finding.Finding {
	f := finding.Finding{
		Code: CodeUnread, File: path, Message: fmt.Sprintf("cannot be read: %v", cause(err)),
		Remedy: "make it readable for the user that runs Isthmus, or remove it",
	}
	if errors.Is(err, fs.ErrNotExist) {
		f.Remedy = "create it, or name another folder"
	}
	return f
}

// cause is an error without the path that the finding names already.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
