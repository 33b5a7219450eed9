package door

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// Bounds on the refusals that are distinguished between two writes. Further ones are counted without details.
const (
	maxFolds      = 4096
	maxFoldsOfOne = 64 // of one actor or, for strangers, of one address
	flushEvery    = time.Second
)

// Refusals counts refusals in memory and writes them once a second, so that a flood of them costs few writes.
type Refusals struct {
	Events Events
	Log    *slog.Logger

	mu    sync.Mutex // guards the fields below
	folds map[state.Event]*fold
	of    map[string]int // number of folds by actor
}

type fold struct {
	first, last time.Time
	count       int
}

// Add counts a refusal. It never blocks.
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

// Flush writes the counted refusals. What cannot be written is kept for the next time.
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

// Run writes once a second, and a last time when ctx is done.
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
			r.Log.Error("refusals not recorded yet, trying again every second", "error", err)
		}
		failed = err != nil
	}
}
