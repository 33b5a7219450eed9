package relational

import (
	"context"
	"sync"

	"isthmus.dev/isthmus/internal/state"
)

// maxPending limits the queue of a watcher that does not receive. Beyond it, a single change stands for everything.
const maxPending = 10_000

// Watchers notify all watchers of changes.
type Watchers struct {
	mu  sync.Mutex // guards the fields below
	all map[*watcher]bool
}

type watcher struct {
	pending map[state.Change]bool // guarded by Watchers.mu
	order   []state.Change        // of pending
	news    chan struct{}         // holds a value while something is pending
}

// Tell passes changes on. It never blocks.
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

// Watch sends changes that are told from now on, until ctx is done.
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
				continue // already taken by an earlier receive
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
