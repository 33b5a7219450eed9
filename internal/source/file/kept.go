package file

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/durable"
)

// copies are what the files last meant, in a folder of their own, so that an object that is broken while nobody runs is
// not lost either: what it denied stays denied. A copy is the file itself while all of it can be read, else its objects
// that could be read and those that stayed as they were. It is named by what it is of and what it says.
type copies struct {
	root, dir string
	log       *slog.Logger
	names     map[string]string // by hash of the path
	swept     bool              // of files that went before this process
	failing   bool
}

// openCopies reads which copies there are. Without a folder nothing is kept.
func openCopies(root, dir string, log *slog.Logger) *copies {
	c := &copies{root: root, dir: dir, log: log, names: map[string]string{}}
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
	for _, e := range entries {
		if of, _, ok := strings.Cut(e.Name(), "-"); ok && !strings.HasPrefix(of, ".") {
			c.names[of] = e.Name()
		}
	}
	return c
}

// of is the name's part that tells the file, by its place in the folder.
func (c *copies) of(path string) string {
	sum := sha256.Sum256([]byte(strings.TrimPrefix(path, c.root)))
	return hex.EncodeToString(sum[:16])
}

// keep a good text in place of the one before. A disk that is full is told once and does not hold up the change.
func (c *copies) keep(path string, text []byte) {
	of, sum := c.of(path), sha256.Sum256(text)
	name := of + "-" + hex.EncodeToString(sum[:])
	before := c.names[of]
	if c.dir == "" || before == name {
		return
	}
	err := durable.WriteFile(filepath.Join(c.dir, name), text)
	if err == nil && before != "" {
		err = os.Remove(filepath.Join(c.dir, before))
	}
	if err != nil {
		c.warn(err)
		return
	}
	c.names[of], c.failing = name, false
}

// recall is a file as it last was good, and since when; nil when there is no copy, or none that is whole.
func (c *copies) recall(path string) (text []byte, since time.Time) {
	name := c.names[c.of(path)]
	if name == "" {
		return nil, time.Time{}
	}
	full := filepath.Join(c.dir, name)
	text, err := os.ReadFile(full)
	if err != nil {
		c.warn(err)
		return nil, time.Time{}
	}
	sum := sha256.Sum256(text)
	if !strings.HasSuffix(name, "-"+hex.EncodeToString(sum[:])) {
		c.warn(fmt.Errorf("%s: damaged", full))
		return nil, time.Time{}
	}
	info, err := os.Stat(full)
	if err != nil {
		c.warn(err)
		return nil, time.Time{}
	}
	return text, info.ModTime()
}

// forget the copy of a file that is gone.
func (c *copies) forget(path string) { c.drop(c.of(path)) }

// sweep away, once, the copies of files that went while nobody ran.
func (c *copies) sweep(there map[string]stamp) {
	if c.swept {
		return
	}
	c.swept = true
	known := map[string]bool{}
	for path := range there {
		known[c.of(path)] = true
	}
	for of := range c.names {
		if !known[of] {
			c.drop(of)
		}
	}
}

func (c *copies) drop(of string) {
	name, ok := c.names[of]
	if !ok {
		return
	}
	if err := os.Remove(filepath.Join(c.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.warn(err)
	}
	delete(c.names, of)
}

func (c *copies) warn(err error) {
	if !c.failing {
		c.log.Warn("last good configuration not kept for the next start", "folder", c.dir, "error", err)
	}
	c.failing = true
}
