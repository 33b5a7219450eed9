package file

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// absent is how often a missing folder is looked for.
const absent = 250 * time.Millisecond

// watch turns notifications into refreshes.
type watch struct {
	s       *Source
	inotify *fsnotify.Watcher // nil if the system has no watches left; then only polling works
	dirs    map[string]stamp

	dirty map[string]bool // files to read again
	all   bool            // scan everything
	since time.Time       // first change not yet applied
	timer *time.Timer
}

func newWatch(s *Source) *watch {
	w := &watch{s: s, dirs: map[string]stamp{}, dirty: map[string]bool{}, timer: time.NewTimer(time.Hour)}
	var err error
	if w.inotify, err = fsnotify.NewWatcher(); err != nil {
		w.inotify = nil
		s.cfg.Log.Warn("cannot watch the configuration folder, looking at it every second instead", "folder", s.cfg.Dir,
			"error", err)
	}
	return w
}

func (w *watch) close() {
	w.timer.Stop()
	if w.inotify != nil {
		_ = w.inotify.Close()
	}
}

func (w *watch) run(ctx context.Context) error {
	var events chan fsnotify.Event
	var errs chan error
	if w.inotify != nil {
		events, errs = w.inotify.Events, w.inotify.Errors
	}
	w.all = true
	w.apply(ctx)
	poll := time.NewTimer(w.pollEvery())
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-events:
			w.note(e)
		case <-errs: // events were lost
			w.all = true
			w.arm()
		case <-w.timer.C:
			w.apply(ctx)
		case <-poll.C:
			w.all = true
			w.apply(ctx)
			poll.Reset(w.pollEvery())
		}
	}
}

func (w *watch) pollEvery() time.Duration {
	every := w.s.cfg.Poll
	if w.inotify == nil {
		every = min(every, time.Second)
	}
	return every
}

// note records one notification.
func (w *watch) note(e fsnotify.Event) {
	switch w.classify(e) {
	case nothing:
		return
	case one:
		w.dirty[e.Name] = true
	case everything:
		w.all = true
	}
	w.arm()
}

type reach int

const (
	nothing reach = iota
	one
	everything
)

// classify returns how much a notification may concern.
func (w *watch) classify(e fsnotify.Event) reach {
	if _, isDir := w.dirs[e.Name]; isDir {
		return everything
	}
	info, err := os.Lstat(e.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if isConfig(e.Name) {
			return everything
		}
		return nothing
	case err != nil || info.IsDir() || info.Mode()&fs.ModeSymlink != 0:
		if strings.HasPrefix(filepath.Base(e.Name), ".") && !strings.HasPrefix(filepath.Base(e.Name), "..") {
			return nothing
		}
		return everything
	case isConfig(e.Name) && info.Mode().IsRegular():
		return one
	}
	return nothing
}

// arm waits for the folder to settle before changes are applied, up to a limit.
func (w *watch) arm() {
	now := time.Now()
	if w.since.IsZero() {
		w.since = now
	}
	wait := min(w.s.cfg.Quiet, w.since.Add(w.s.cfg.Longest).Sub(now))
	w.timer.Reset(max(0, wait))
}

// apply reads what changed and publishes it.
func (w *watch) apply(ctx context.Context) {
	began := time.Now()
	w.since = time.Time{}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	d := w.s.folder
	all, dirty := w.all || len(d.trouble) > 0, w.dirty
	w.all = false
	var again unfinished
	if all {
		var l listing
		l, again = d.refreshAll(ctx, dirty, began)
		w.rewatch(l)
	} else {
		again = d.refresh(ctx, slices.Collect(maps.Keys(dirty)), nil, began)
	}
	w.dirty, w.all = again.files, w.all || again.all
	w.s.publish(time.Since(began))
	switch {
	case w.all || len(w.dirty) > 0:
		w.since = time.Now()
		w.timer.Reset(w.s.cfg.Quiet)
	case len(w.dirs) == 0:
		w.all = true
		w.timer.Reset(min(absent, w.s.cfg.Poll))
	}
}

// rewatch watches the folders in a listing, including those that were replaced. A folder is watched only after it was
// listed, so changes in between are looked for once more.
func (w *watch) rewatch(l listing) {
	if w.inotify == nil {
		w.dirs = l.dirs
		return
	}
	for dir, old := range w.dirs {
		if st, ok := l.dirs[dir]; !ok || st.dev != old.dev || st.inode != old.inode {
			_ = w.inotify.Remove(dir) // usually gone already
			delete(w.dirs, dir)
		}
	}
	for dir, st := range l.dirs {
		if _, ok := w.dirs[dir]; ok {
			continue
		}
		if err := w.inotify.Add(dir); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				w.s.cfg.Log.Warn("cannot watch a folder, looking at it now and then instead", "folder", dir, "error",
					err)
			}
			continue
		}
		w.dirs[dir] = st
		w.all = true
	}
}
