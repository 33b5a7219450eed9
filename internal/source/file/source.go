// Package file reads the configuration from a folder of YAML files. It watches the folder, applies changes of several
// files together, and keeps the last valid state of an object that is broken.
package file

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/internal/istioyaml"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Config of a Source.
type Config struct {
	// Dir is the folder. Files ending in .yaml, .yml or .json count, also in subfolders, except hidden ones.
	Dir string
	// Validate checks Isthmus's own kinds; usually (*schema.Schemas).Validate.
	Validate istioyaml.Validator
	Log      *slog.Logger
	// Copies is a folder with mode 0700 for copies of the files' last valid state. With it, an object that is broken at
	// the start of the next Source also stays as it was. Empty: no copies.
	Copies string
	// Ages stores when objects were first seen. nil: this is forgotten with the Source.
	Ages Ages
	// Quiet is how long the folder must be unchanged before changes take effect. Default 10 ms.
	Quiet time.Duration
	// Longest is how long a change waits at most for others. Default 100 ms.
	Longest time.Duration
	// Poll is how often the whole folder is scanned, in case a notification was lost. Default 5 s.
	Poll time.Duration
}

// Source is a watched folder.
type Source struct {
	cfg     Config
	current atomic.Pointer[snapshot.Config]
	updates chan *snapshot.Config

	mu     sync.Mutex // guards folder
	folder *folder
}

// New returns a source that has read nothing yet.
func New(ctx context.Context, cfg Config) (*Source, error) {
	if cfg.Quiet <= 0 {
		cfg.Quiet = 10 * time.Millisecond
	}
	if cfg.Longest <= 0 {
		cfg.Longest = 50 * time.Millisecond
	}
	if cfg.Poll <= 0 {
		cfg.Poll = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a, err := openAges(ctx, cfg.Ages, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("read which objects were first: %w", err)
	}
	f := newFolder(cfg.Dir, cfg.Validate, openCopies(cfg.Dir, cfg.Copies, cfg.Log), a, true)
	s := &Source{cfg: cfg, updates: make(chan *snapshot.Config, 1), folder: f}
	s.current.Store(s.folder.config)
	return s, nil
}

// LoadDir reads a folder once. The error concerns the folder itself; problems inside it are in the configuration's
// findings. Objects have unknown ages: conflicts are decided by key, and between two definitions of one key by file
// name and line.
func LoadDir(dir string, validate istioyaml.Validator) (*snapshot.Config, error) {
	d := offline(dir, validate)
	l, _ := d.refreshAll(context.Background(), nil, time.Now())
	if err := l.errs[dir]; err != nil {
		return nil, fmt.Errorf("read configuration folder %s: %w", dir, cause(err))
	}
	return d.config, nil
}

// Load reads the folder now and returns the configuration. The result is not sent to Updates.
func (s *Source) Load(ctx context.Context) *snapshot.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.folder.refreshAll(ctx, nil, time.Now())
	s.current.Store(s.folder.config)
	return s.folder.config
}

// ReloadAges applies the stored ages again, since another control plane may have removed some.
func (s *Source) ReloadAges(ctx context.Context) error {
	began := time.Now()
	all, err := s.cfg.Ages.ConfigAges(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.folder.reloadAges(ctx, all)
	s.publish(time.Since(began))
	return nil
}

// Current returns the newest configuration, never nil.
func (s *Source) Current() *snapshot.Config { return s.current.Load() }

// Updates delivers new configurations to a single reader. A slow reader gets only the latest.
func (s *Source) Updates() <-chan *snapshot.Config { return s.updates }

// Run watches the folder until ctx is done.
func (s *Source) Run(ctx context.Context) error {
	w := newWatch(s)
	defer w.close()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.folder.copies.run(ctx) })
	g.Go(func() error { return w.run(ctx) })
	return g.Wait()
}

// publish makes the folder's configuration current and sends it to the reader, if it is new.
func (s *Source) publish(took time.Duration) {
	c := s.folder.config
	if s.current.Swap(c) == c {
		return
	}
	s.cfg.Log.Info("configuration changed", "folder", s.cfg.Dir, "objects", c.Objects.Len(), "findings",
		len(c.Findings), "took", took)
	select {
	case <-s.updates: // an older one that was not read
	default:
	}
	s.updates <- c
}
