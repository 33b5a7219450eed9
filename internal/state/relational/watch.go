package relational

import (
	"context"
	"sync"

	"isthmus.dev/isthmus/internal/state"
)

// maxPending bounds what is kept for a watcher that does not receive. What exceeds it becomes one change of everything.
const maxPending = 10_000

// Watchers tell changes to all who watch.
type Watchers struct {
	mu  sync.Mutex // guards all
	all map[*watcher]bool
}

type watcher struct {
	pending map[state.Change]bool // guarded by Watchers.mu
	order   []state.Change        // of pending
	news    chan struct{}         // has a value while something is pending
}

// Tell passes changes on. It never waits for a watcher.
func (w *Watchers) Tell(changes []state.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.all {
		for _, c := range changes {
			if !one.pending[c] {
				one.pending[c] = true
				one.order = append(one.order, c)
			}
		}
		if len(one.order) > maxPending {
			one.order = []state.Change{{}}
			one.pending = map[state.Change]bool{{}: true}
		}
		if len(one.order) > 0 {
			select {
			case one.news <- struct{}{}:
			default:
			}
		}
	}
}

// Watch sends what is told from now on, until ctx ends.
func (w *Watchers) Watch(ctx context.Context) <-chan []state.Change {
	one := &watcher{pending: map[state.Change]bool{}, news: make(chan struct{}, 1)}
	w.mu.Lock()
	if w.all == nil {
		w.all = map[*watcher]bool{}
	}
	w.all[one] = true
	w.mu.Unlock()
	out := make(chan []state.Change)
	go func() {
		defer w.leave(one)
		for {
			select {
			case <-ctx.Done():
				return
			case <-one.news:
			}
			changes := w.take(one)
			if len(changes) == 0 {
				continue // what came while news was read went with it
			}
			select {
			case <-ctx.Done():
				return
			case out <- changes:
			}
		}
	}()
	return out
}

func (w *Watchers) leave(one *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, one)
}

func (w *Watchers) take(one *watcher) []state.Change {
	w.mu.Lock()
	defer w.mu.Unlock()
	changes := one.order
	one.order, one.pending = nil, map[state.Change]bool{}
	return changes
}
