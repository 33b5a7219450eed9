package door

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// Bounds on what is told apart between two writes. What exceeds them is counted, without the details.
const (
	maxFolds      = 4096
	maxFoldsOfOne = 64 // of one actor; of strangers, of one address
	flushEvery    = time.Second
)

// Refusals are counted in memory and written once a second, so that however many there are cost few writes.
type Refusals struct {
	Events Events
	Log    *slog.Logger

	mu    sync.Mutex // guards all below
	folds map[state.Event]*fold
	of    map[string]int // how many folds each has
}

type fold struct {
	first, last time.Time
	count       int
}

// Add counts a refusal. It never waits.
func (r *Refusals) Add(e state.Event) {
	now := time.Now()
	e.Outcome = state.Refused
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.folds == nil {
		r.folds, r.of = map[state.Event]*fold{}, map[string]int{}
	}
	one := e.Actor
	if one == state.Stranger {
		one = e.From
	}
	if _, known := r.folds[e]; !known && (len(r.folds) >= maxFolds || r.of[one] >= maxFoldsOfOne) {
		e = state.Event{Actor: e.Actor, From: "(others)", Action: "call", Outcome: state.Refused}
	}
	if _, known := r.folds[e]; !known && len(r.folds) >= 2*maxFolds {
		e.Actor = state.Stranger
	}
	f := r.folds[e]
	if f == nil {
		f = &fold{first: now}
		r.folds[e] = f
		r.of[one]++
	}
	f.last = now
	f.count++
}

// Flush writes what was counted. What cannot be written now is kept.
func (r *Refusals) Flush(ctx context.Context) error {
	r.mu.Lock()
	folds := r.folds
	r.folds, r.of = nil, nil
	r.mu.Unlock()
	var errs []error
	for e, f := range folds {
		e.Time, e.First, e.Count = f.last, f.first, f.count
		if err := r.Events.Record(ctx, e); err != nil {
			errs = append(errs, err)
			r.keep(e, f)
		}
	}
	return errors.Join(errs[:min(len(errs), 1)]...)
}

func (r *Refusals) keep(e state.Event, f *fold) {
	e.Time, e.First, e.Count = time.Time{}, time.Time{}, 0
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.folds == nil {
		r.folds, r.of = map[state.Event]*fold{}, map[string]int{}
	}
	if now := r.folds[e]; now != nil {
		f.last, f.count = now.last, f.count+now.count
	}
	r.folds[e] = f
}

// Run writes once a second, and once more when ctx ends.
func (r *Refusals) Run(ctx context.Context) error {
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for failed := false; ; {
		select {
		case <-ctx.Done():
			if err := r.Flush(context.WithoutCancel(ctx)); err != nil {
				r.Log.Error("refusals not recorded", "error", err)
			}
			return nil
		case <-tick.C:
		}
		err := r.Flush(ctx)
		if err != nil && !failed && ctx.Err() == nil {
			r.Log.Error("refusals not recorded yet: tried again every second", "error", err)
		}
		failed = err != nil
	}
}
