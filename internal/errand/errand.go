// Package errand runs a job whenever it is asked for, in a goroutine that is there only meanwhile. Who serves thousands
// of connections that mostly rest keeps no goroutine for each thing that may happen on them: an idle one costs some
// kilobytes of stack.
package errand

import "sync"

// Errand is a job of which one run is under way at a time. Asked for during a run, it is run once more after that.
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

// Ask has the job run. It never blocks.
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

// more says whether the job was asked for meanwhile.
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

// Stop has the job not run any more, and waits for the run that is under way. It must not be called by the job.
func (e *Errand) Stop() {
	e.stop()
	e.runs.Wait()
}
