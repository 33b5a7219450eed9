// Package errand runs a job on demand, in a goroutine that exists only during the run. A server of thousands of mostly
// idle connections saves the goroutines that would wait on each of them: an idle goroutine costs some kilobytes of
// stack.
package errand

import "sync"

// Errand is a job with at most one run at a time. A request during a run causes one more run after it.
type Errand struct {
	job   func() error
	ended chan<- error
	runs  sync.WaitGroup

	mu             sync.Mutex // guards all below
	running, again bool
	over           bool // it failed, or was stopped
}

// New makes an errand. The first error that the job returns ends it and is sent to ended, which must have room for it.
func New(job func() error, ended chan<- error) *Errand { return &Errand{job: job, ended: ended} }

// Ask requests a run. It never blocks.
func (e *Errand) Ask() {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.over:
	case e.running:
		e.again = true
	default:
		e.running = true
		e.runs.Go(e.run)
	}
}

func (e *Errand) run() {
	for {
		if err := e.job(); err != nil {
			e.stop()
			e.ended <- err
			return
		}
		if !e.more() {
			return
		}
	}
}

// more reports whether a run was requested during the last one.
func (e *Errand) more() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running, e.again = e.again && !e.over, false
	return e.running
}

func (e *Errand) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over = true
}

// Stop prevents further runs and waits for the current one. The job must not call it.
func (e *Errand) Stop() {
	e.stop()
	e.runs.Wait()
}
