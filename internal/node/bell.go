package node

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// bell wakes all who wait for it at once.
type bell struct {
	mu sync.Mutex    // guards ch
	ch chan struct{} // closed and replaced at every ring
}

func newBell() *bell { return &bell{ch: make(chan struct{})} }

// heard is closed at the next ring.
func (b *bell) heard() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}

// watch rings the bell whenever something comes or goes in a directory with network namespaces. Where the system cannot
// watch, the homes' own glances serve, only later.
func (a *Agent) watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		a.log.Warn("network namespaces are looked for only now and then", "every", lookEvery.String(), "error", err)
		<-ctx.Done()
		return ctx.Err()
	}
	defer w.Close()
	missing := map[string]bool{}
	for _, x := range a.cfg.Workloads {
		if x.Netns != "" {
			missing[filepath.Dir(x.Netns)] = true
		}
	}
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		for dir := range missing {
			if w.Add(dir) == nil { // an error means that it is not there yet
				delete(missing, dir)
				a.bell.ring()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Events:
			a.bell.ring()
		case err := <-w.Errors:
			a.log.Warn("a change of network namespaces may be seen late", "error", err)
		case <-again.C:
		}
	}
}
