package accesslog

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"isthmus.dev/isthmus/internal/wellknown"
)

const (
	// Each source may have refusalBurst refusals written whole at once, and then refusalRate per second. Further ones
	// are folded into one line.
	refusalBurst = 1000
	refusalRate  = 10
	// foldFor is how long refusals are folded before their line is written.
	foldFor = time.Minute
	// maxFolded bounds the kinds of refusals that are folded separately, maxSources the sources that are told apart.
	maxFolded  = 1024
	maxSources = 1024
	// maxField bounds a text of an entry that a caller chose, in bytes.
	maxField = 1024
)

// shares writes the entries of each source, a peer mesh or a workload, to files of its own, so that a source with very
// many entries pushes out only its own. Entries without a known source go to the file at path.
type shares struct {
	path string
	max  int64

	mu      sync.Mutex // guards what follows
	files   map[string]*file
	budgets map[string]*rate.Limiter
	folded  map[foldGroup]*Entry
	timer   *time.Timer // runs while anything is folded
}

// foldGroup is what folded refusals have in common.
type foldGroup struct{ source, log, verdict, class, caller, destination, reason string }

func newShares(path string, max int64) *shares {
	return &shares{
		path: path, max: max, files: map[string]*file{}, budgets: map[string]*rate.Limiter{},
		folded: map[foldGroup]*Entry{},
	}
}

// write writes an entry, or folds it with similar ones.
func (s *shares) write(e *Entry) error {
	e.truncate()
	s.mu.Lock()
	defer s.mu.Unlock()
	source := sourceOf(e)
	if e.Refused() && !s.budget(source, e.Remote).Allow() {
		s.fold(source, e)
		return nil
	}
	return s.file(source).write(e)
}

// sourceOf names the source of an entry and its file: the peer where meshes meet, else the workload.
func sourceOf(e *Entry) string {
	switch e.Log {
	case wellknown.LogIngress, wellknown.LogEgress:
		return e.Peer
	case logQuestions:
		return strings.ReplaceAll(e.Caller, "/", ".")
	}
	return strings.ReplaceAll(e.Tags[tagWorkload], "/", ".")
}

// file must be called with mu held.
func (s *shares) file(source string) *file {
	if source != "" && s.files[source] == nil && len(s.files) >= maxSources || strings.ContainsRune(source, '/') {
		source = ""
	}
	f := s.files[source]
	if f == nil {
		f = &file{path: s.pathOf(source), max: s.max}
		s.files[source] = f
	}
	return f
}

func (s *shares) pathOf(source string) string {
	if source == "" {
		return s.path
	}
	ext := filepath.Ext(s.path)
	return strings.TrimSuffix(s.path, ext) + "." + source + ext
}

// budget returns that of a source or, if unknown, of the address that an entry came from. The caller holds mu.
func (s *shares) budget(source, remote string) *rate.Limiter {
	if source == "" {
		source = "from " + remote
	}
	b := s.budgets[source]
	if b == nil {
		if len(s.budgets) >= maxSources {
			clear(s.budgets) // so many addresses are an attack
		}
		b = rate.NewLimiter(refusalRate, refusalBurst)
		s.budgets[source] = b
	}
	return b
}

// fold must be called with mu held.
func (s *shares) fold(source string, e *Entry) {
	k := foldGroup{source, e.Log, e.Verdict, e.Class, e.Caller, e.Destination, e.Reason}
	if s.folded[k] == nil && len(s.folded) >= maxFolded {
		k = foldGroup{source: source, log: e.Log, verdict: e.Verdict}
	}
	first := s.folded[k]
	if first == nil {
		one := *e
		if k.reason == "" {
			one.Reason = "refusals of many kinds"
		}
		first = &one
		s.folded[k] = first
	}
	first.Repeated++
	if s.timer == nil {
		s.timer = time.AfterFunc(foldFor, func() { s.unfold() })
	}
}

// unfold writes a line for each kind of folded refusal: the first of them, with their number.
func (s *shares) unfold() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for k, e := range s.folded {
		errs = append(errs, s.file(k.source).write(e))
	}
	clear(s.folded)
	s.timer = nil
	return errors.Join(append(errs, s.flushAll())...)
}

// flush writes buffered entries to the disk.
func (s *shares) flush() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushAll()
}

// flushAll must be called with mu held.
func (s *shares) flushAll() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.flush())
	}
	return errors.Join(errs...)
}

// lostEntries returns how many entries could not be written; most of the last ones, when a disk is full, may be there
// after all.
func (s *shares) lostEntries() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		n += f.lostEntries()
	}
	return n
}

func (s *shares) close() error {
	s.mu.Lock()
	timer := s.timer
	s.mu.Unlock()
	var errs []error
	if timer != nil && timer.Stop() {
		errs = append(errs, s.unfold())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		errs = append(errs, s.files[name].close())
	}
	return errors.Join(errs...)
}

// truncate shortens the texts that a caller chose, so that long ones cannot push other entries out.
func (e *Entry) truncate() {
	for _, text := range []*string{
		&e.Caller, &e.AssertedBy, &e.Destination, &e.Reason, &e.SNI, &e.Method, &e.Authority, &e.Path,
	} {
		*text = shortened(*text)
	}
	for k, v := range e.Tags {
		if len(v) > maxField {
			e.Tags[k] = shortened(v)
		}
	}
}

func shortened(s string) string {
	if len(s) <= maxField {
		return s
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(s[:maxField], ""), len(s))
}
