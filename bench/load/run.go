package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Caller is one connection that makes one call after the other.
type Caller interface {
	Call() error
	Close() error
}

// Config of one run.
type Config struct {
	Dial        func(context.Context) (Caller, error)
	Connections int
	Duration    time.Duration
	WarmUp      time.Duration // before Duration, not counted
	Rate        int           // calls a second, open loop only
}

// Result of one run, without its warm-up.
type Result struct {
	Latency Histogram // of calls that succeeded
	Errors  int
	First   error // the first error, for a person
	Elapsed time.Duration
	Made    int // calls that succeeded, those of the warm-up too
}

// PerSecond is the rate of successful calls.
func (r Result) PerSecond() float64 { return float64(r.Latency.Count()) / r.Elapsed.Seconds() }

// worker is one connection and what it saw.
type worker struct {
	caller Caller
	result Result
}

// dialAll opens all connections before the clock starts.
func dialAll(ctx context.Context, cfg Config) ([]*worker, error) {
	workers := make([]*worker, cfg.Connections)
	for i := range workers {
		c, err := cfg.Dial(ctx)
		if err != nil {
			closeAll(workers)
			return nil, fmt.Errorf("open connection %d: %w", i, err)
		}
		workers[i] = &worker{caller: c}
	}
	return workers, nil
}

func closeAll(workers []*worker) error {
	var errs []error
	for _, w := range workers {
		if w != nil && w.caller != nil {
			errs = append(errs, w.caller.Close())
		}
	}
	return errors.Join(errs...)
}

// call makes one call, counting its time from intended on, if it is to be counted.
func (w *worker) call(ctx context.Context, cfg Config, intended time.Time, counted bool) {
	var err error
	if w.caller == nil {
		w.caller, err = cfg.Dial(ctx)
	}
	if err == nil {
		err = w.caller.Call()
	}
	took := time.Since(intended)
	if err == nil {
		w.result.Made++
	}
	if err != nil && w.caller != nil {
		w.caller.Close() // its state is unknown; the call's own error is what counts
		w.caller = nil
	}
	switch {
	case !counted || ctx.Err() != nil:
	case err != nil:
		w.result.Errors++
		if w.result.First == nil {
			w.result.First = err
		}
	default:
		w.result.Latency.Add(took)
	}
}

// Closed calls as fast as the answers come, on every connection.
func Closed(ctx context.Context, cfg Config) (Result, error) {
	workers, err := dialAll(ctx, cfg)
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	counting, end := start.Add(cfg.WarmUp), start.Add(cfg.WarmUp+cfg.Duration)
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() {
			for now := time.Now(); now.Before(end) && ctx.Err() == nil; now = time.Now() {
				w.call(ctx, cfg, now, !now.Before(counting))
			}
		})
	}
	wg.Wait()
	return sum(ctx, cfg, workers)
}

// Open calls at a fixed rate. When all connections are busy the calls wait, and their waiting counts.
func Open(ctx context.Context, cfg Config) (Result, error) {
	if cfg.Rate < 1 {
		return Result{}, fmt.Errorf("a rate of %d calls a second", cfg.Rate)
	}
	workers, err := dialAll(ctx, cfg)
	if err != nil {
		return Result{}, err
	}
	warm := int(cfg.WarmUp.Seconds() * float64(cfg.Rate))
	total := warm + int(cfg.Duration.Seconds()*float64(cfg.Rate))
	type due struct {
		at      time.Time
		counted bool
	}
	queue := make(chan due, total) // never blocks the pacer
	var wg sync.WaitGroup
	for _, w := range workers {
		wg.Go(func() {
			for d := range queue {
				w.call(ctx, cfg, d.at, d.counted)
			}
		})
	}
	wg.Go(func() {
		defer close(queue)
		pace(ctx, total, time.Second/time.Duration(cfg.Rate), func(i int, at time.Time) { queue <- due{at, i >= warm} })
	})
	wg.Wait()
	return sum(ctx, cfg, workers)
}

// sum closes the connections and adds up what they saw.
func sum(ctx context.Context, cfg Config, workers []*worker) (Result, error) {
	total := Result{Elapsed: cfg.Duration}
	for _, w := range workers {
		total.Latency.Merge(&w.result.Latency)
		total.Errors += w.result.Errors
		total.Made += w.result.Made
		if total.First == nil {
			total.First = w.result.First
		}
	}
	closeAll(workers) // peers may be gone already; the calls were counted
	return total, ctx.Err()
}
