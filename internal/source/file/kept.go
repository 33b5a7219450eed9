package file

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/durable"
)

// syncEvery is how long copies wait for others until they are all synced to the disk together.
const syncEvery = time.Second

// copies are stored copies of what the files last meant, so that an object that becomes broken while the control plane
// is down keeps its effect: what it denied stays denied. A copy is the file itself if all of it can be decoded;
// otherwise the decodable objects, and those that stayed as they were.
//
// A copy is written before its change takes effect, so nothing is lost if the process is killed. No change waits for
// the disk: run syncs the copies a moment later, and only then removes those that they replace. Until then a file may
// have several copies, of which the newest intact one counts. The files themselves are usually not synced earlier
// either.
type copies struct {
	root, dir string
	log       *slog.Logger
	swept     bool          // copies of files that disappeared before this process were removed
	written   chan struct{} // receives a value when some copy is not synced

	mu      sync.Mutex          // guards the fields below
	newest  map[string]copyName // by copyName.of
	stale   map[string][]copyName
	unsafe  map[string]bool // files whose newest copy is not synced
	failing bool
}

// copyName identifies the file, the number and the content of a copy.
type copyName struct {
	of  string // hash of the file's path
	n   uint64 // newer copies of the file have higher numbers
	sum string // hash of the text
}

func (c copyName) String() string { return fmt.Sprintf("%s-%d-%s", c.of, c.n, c.sum) }

func parseCopyName(name string) (copyName, bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 {
		return copyName{}, false
	}
	n, err := strconv.ParseUint(parts[1], 10, 64)
	return copyName{parts[0], n, parts[2]}, err == nil
}

func sumOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// openCopies lists the copies. Without a folder, nothing is stored.
func openCopies(root, dir string, log *slog.Logger) *copies {
	c := &copies{
		root: root, dir: dir, log: log, written: make(chan struct{}, 1), newest: map[string]copyName{},
		stale: map[string][]copyName{}, unsafe: map[string]bool{},
	}
	if dir == "" {
		return c
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.warn(err)
		return c
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		c.warn(err)
	}
	all := map[string][]copyName{}
	for _, e := range entries {
		if name, ok := parseCopyName(e.Name()); ok {
			all[name.of] = append(all[name.of], name)
		}
	}
	for of, names := range all {
		slices.SortFunc(names, func(a, b copyName) int { return cmp.Compare(b.n, a.n) })
		c.newest[of] = names[0]
		if len(names) > 1 { // the last process ended before it removed the older ones
			c.choose(of, names)
		}
	}
	return c
}

// choose selects the newest intact copy of several.
func (c *copies) choose(of string, names []copyName) {
	i := max(0, slices.IndexFunc(names, func(n copyName) bool {
		text, err := os.ReadFile(c.path(n))
		return err == nil && sumOf(text) == n.sum
	}))
	c.newest[of], c.stale[of] = names[i], slices.Concat(names[:i], names[i+1:])
	c.mark(of)
}

// of returns the part of a copy's name that identifies the file.
func (c *copies) of(path string) string {
	sum := sha256.Sum256([]byte(strings.TrimPrefix(path, c.root)))
	return hex.EncodeToString(sum[:16])
}

func (c *copies) path(n copyName) string { return filepath.Join(c.dir, n.String()) }

// keep replaces the copy of a file. A full disk is reported once and does not delay the change.
func (c *copies) keep(path string, text []byte) {
	if c.dir == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	of, sum := c.of(path), sumOf(text)
	before, had := c.newest[of]
	if had && before.sum == sum {
		return
	}
	next := copyName{of, before.n + 1, sum}
	if err := durable.Create(c.path(next), text); err != nil {
		c.warn(err)
		return
	}
	if had {
		c.stale[of] = append(c.stale[of], before)
	}
	c.newest[of], c.failing = next, false
	c.mark(of)
}

// mark makes run process the copies of a file. The caller holds mu.
func (c *copies) mark(of string) {
	c.unsafe[of] = true
	select {
	case c.written <- struct{}{}:
	default:
	}
}

// run syncs copies until ctx is done.
func (c *copies) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.written:
		}
		c.sync(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(syncEvery):
		}
	}
}

// sync syncs what is written so far, and removes what it replaces.
func (c *copies) sync(ctx context.Context) {
	c.mu.Lock()
	safe := make([]copyName, 0, len(c.unsafe))
	for of := range c.unsafe {
		safe = append(safe, c.newest[of])
	}
	clear(c.unsafe)
	c.mu.Unlock()
	var failed []error
	safe = slices.DeleteFunc(safe, func(n copyName) bool {
		err := ctx.Err()
		if err == nil {
			err = durable.SyncFile(c.path(n))
		}
		if errors.Is(err, os.ErrNotExist) {
			return true // dropped
		}
		failed = append(failed, err)
		return err != nil
	})
	if len(safe) > 0 {
		failed = append(failed, durable.SyncFolder(c.dir))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(failed...); err != nil {
		if ctx.Err() == nil {
			c.warn(err)
		}
		return // replaced copies stay until another copy takes their place
	}
	for _, n := range safe {
		if c.newest[n.of] == n {
			c.remove(c.stale[n.of]...)
			delete(c.stale, n.of)
		}
	}
}

// recall returns a file's last valid content and its time, or nil if there is no intact copy.
func (c *copies) recall(path string) (text []byte, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name, ok := c.newest[c.of(path)]
	if !ok {
		return nil, time.Time{}
	}
	text, err := os.ReadFile(c.path(name))
	if err == nil && sumOf(text) != name.sum {
		err = fmt.Errorf("%s: damaged", c.path(name))
	}
	if err != nil {
		c.warn(err)
		return nil, time.Time{}
	}
	info, err := os.Stat(c.path(name))
	if err != nil {
		c.warn(err)
		return nil, time.Time{}
	}
	return text, info.ModTime()
}

// forget removes the copies of a file that is gone.
func (c *copies) forget(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(c.of(path))
}

// sweep removes, once, copies of files that disappeared while no control plane ran.
func (c *copies) sweep(there map[string]stamp) {
	if c.swept {
		return
	}
	c.swept = true
	known := map[string]bool{}
	for path := range there {
		known[c.of(path)] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for of := range c.newest {
		if !known[of] {
			c.drop(of)
		}
	}
}

// drop must be called with mu held.
func (c *copies) drop(of string) {
	if name, ok := c.newest[of]; ok {
		c.remove(append(c.stale[of], name)...)
		delete(c.newest, of)
		delete(c.stale, of)
		delete(c.unsafe, of)
	}
}

// remove deletes copies. The caller holds mu.
func (c *copies) remove(names ...copyName) {
	for _, n := range names {
		if err := os.Remove(c.path(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			c.warn(err)
		}
	}
}

// warn must be called with mu held, or before the copies are shared.
func (c *copies) warn(err error) {
	if !c.failing {
		c.log.Warn("last good configuration not kept for the next start", "folder", c.dir, "error", err)
	}
	c.failing = true
}
