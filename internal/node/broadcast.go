package node

import (
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// broadcast wakes all its waiters at once.
type broadcast struct {
	mu sync.Mutex    // guards ch
	ch chan struct{} // closed and replaced by every notify
}

func newBroadcast() *broadcast { return &broadcast{ch: make(chan struct{})} }

// wait returns a channel that the next notify closes.
func (b *broadcast) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ch
}

func (b *broadcast) notify() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.ch)
	b.ch = make(chan struct{})
}

// watch notifies the workloads' namespaces whenever a directory with network namespaces changes. Where the system
// cannot watch directories, the namespaces are polled, which notices a change later.
func (a *Agent) watch(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		a.log.Warn("network namespaces cannot be watched and are polled", "every", lookEvery.String(), "error", err)
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
				a.namespacesChanged.notify()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.Events:
			a.namespacesChanged.notify()
		case err := <-w.Errors:
			a.log.Warn("a change of network namespaces may be seen late", "error", err)
		case <-again.C:
		}
	}
}
