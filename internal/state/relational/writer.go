package relational

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

const (
	// maxTogether limits the writes in one transaction.
	maxTogether = 512
	// patience is how long the database may be unavailable before changes fail. leastPatience is how long each change
	// is tried after that; otherwise a single lost connection would count as a lost database. readPatience is how long
	// a read is tried. retryPause is the pause between retries.
	patience      = 10 * time.Second
	leastPatience = 500 * time.Millisecond
	readPatience  = time.Second
	retryPause    = 50 * time.Millisecond
)

var errClosed = errors.New("it is closed")

// write is one change that a caller waits for.
type write struct {
	name string
	do   func(context.Context, *tx) error // may be run more than once
	err  error                            // outcome
	done chan error                       // receives one answer
}

// writer executes all writes in one goroutine. Writes that arrive while it waits for the database share the next
// transaction. A caller is answered only when its write is durable.
type writer struct {
	writes  chan *write   // unbuffered: a received write is always answered
	stopped sync.Once     // closes closing
	closing chan struct{} // closed by stop
	ended   chan struct{} // closed when the writer has ended
	away    time.Time     // since when the database is unavailable; zero: it is not
}

func (d *DB) startWriter() {
	d.writer = &writer{writes: make(chan *write), closing: make(chan struct{}), ended: make(chan struct{})}
	go d.carryOutAll(d.writer)
}

// stop ends the writer after it has answered all writes that it received.
func (w *writer) stop() {
	if w != nil {
		w.stopped.Do(func() { close(w.closing) })
		<-w.ended
	}
}

// ask executes a write and waits until it is durable. If ctx is done before the writer has received it, it is not
// executed. If later, ask waits for the outcome, since it will be executed.
func (d *DB) ask(ctx context.Context, one *write) error {
	one.done = make(chan error, 1)
	if err := ctx.Err(); err != nil {
		return d.fail(one.name, err)
	}
	select {
	case d.writer.writes <- one:
		return <-one.done
	case <-ctx.Done():
		return d.fail(one.name, ctx.Err())
	case <-d.writer.closing:
		return d.fail(one.name, errClosed)
	}
}

func (d *DB) carryOutAll(w *writer) {
	defer close(w.ended)
	for {
		select {
		case first := <-w.writes:
			runtime.Gosched() // let other callers send their writes
			d.carryOut(w.gather(first))
		case <-w.closing:
			return
		}
	}
}

// gather returns first and all waiting writes.
func (w *writer) gather(first *write) []*write {
	all := []*write{first}
	for len(all) < maxTogether {
		select {
		case next := <-w.writes:
			all = append(all, next)
		default:
			return all
		}
	}
	return all
}

func (d *DB) carryOut(writes []*write) {
	if err := d.persist(context.Background(), writes); err != nil { // not a caller's context: it serves all of them
		for _, one := range writes {
			if one.err == nil {
				one.err = d.fail(one.name, fmt.Errorf("given up with another change: %w", err))
			}
		}
	}
	for _, one := range writes {
		one.done <- one.err
	}
}

// persist executes writes in one transaction and retries while the error is temporary. A failing write does not affect
// the others unless it spoils the transaction; then none has happened.
func (d *DB) persist(ctx context.Context, writes []*write) error {
	until := d.writer.patientUntil(time.Now())
	for apart := false; ; {
		changes, err := d.attempt(ctx, writes, apart, until)
		passing := err != nil && !errors.Is(err, errRefused) && d.engine.Judge(err) == Passing
		d.writer.note(passing, time.Now())
		switch {
		case err == nil:
			d.watchers.Tell(changes)
			return nil
		case errors.Is(err, errRefused) && len(writes) == 1:
			return nil
		case errors.Is(err, errRefused):
			apart = true
		case !passing || time.Now().After(until):
			return err
		default:
			time.Sleep(retryPause)
		}
	}
}

// note records whether the database is available.
func (w *writer) note(away bool, now time.Time) {
	switch {
	case !away:
		w.away = time.Time{}
	case w.away.IsZero():
		w.away = now
	}
}

// patientUntil returns until when a change that starts now is tried. Queued changes do not each wait for the full time
// while the database is unavailable.
func (w *writer) patientUntil(now time.Time) time.Time {
	if w.away.IsZero() {
		return now.Add(patience)
	}
	until, least := w.away.Add(patience), now.Add(leastPatience)
	if until.Before(least) {
		return least
	}
	return until
}

// errRefused means that a write was refused and the transaction is otherwise intact.
var errRefused = errors.New("a change was refused")

// attempt executes writes in one transaction. With apart, each can fail alone; without, which is faster, it assumes
// that none is refused.
func (d *DB) attempt(ctx context.Context, writes []*write, apart bool, until time.Time) ([]state.Change, error) {
	forever := ctx
	ctx, cancel := d.engine.Bounded(ctx)
	defer cancel()
	begun, id, err := d.engine.Begin(ctx)
	if err != nil {
		return nil, err
	}
	t := &tx{d: d, tx: begun}
	if err := t.run(ctx, writes, apart); err != nil {
		return nil, errors.Join(err, ignoreDone(begun.Rollback()))
	}
	if len(t.changes) > 0 {
		if err := d.engine.Announce(ctx, begun, t.changes); err != nil {
			return nil, errors.Join(err, ignoreDone(begun.Rollback()))
		}
	}
	err = begun.Commit()
	if err != nil && d.engine.Judge(err) == Passing {
		err = d.outcome(forever, id, err, until)
	}
	return t.changes, err
}

// outcome returns nil if a transaction was committed although its end was lost because of err.
func (d *DB) outcome(ctx context.Context, id string, err error, until time.Time) error {
	for {
		bounded, cancel := d.engine.Bounded(ctx)
		committed, unknown := d.engine.Committed(bounded, id)
		cancel()
		switch {
		case unknown == nil && committed:
			return nil
		case unknown == nil:
			return err
		case time.Now().After(until):
			d.watchers.Tell([]state.Change{{}}) // watchers must read everything again
			return fmt.Errorf("it is not known whether it was written: %w", err)
		}
		time.Sleep(retryPause)
	}
}

func (t *tx) run(ctx context.Context, writes []*write, apart bool) error {
	for _, one := range writes {
		if apart {
			if err := t.apart(ctx, one); err != nil {
				return err
			}
			continue
		}
		if one.err = one.do(ctx, t); one.err != nil {
			return t.refusal(one.err)
		}
	}
	return nil
}

// refusal returns errRefused if an error concerns only one write.
func (t *tx) refusal(err error) error {
	if t.d.engine.Judge(err) == Alone {
		return errRefused
	}
	return err
}

// apart executes one write so that it can fail alone.
func (t *tx) apart(ctx context.Context, one *write) error {
	if _, err := t.tx.ExecContext(ctx, "SAVEPOINT one"); err != nil {
		return err
	}
	before := len(t.changes)
	if one.err = one.do(ctx, t); one.err != nil {
		if err := t.refusal(one.err); !errors.Is(err, errRefused) {
			return err
		}
		t.changes = t.changes[:before]
		if _, err := t.tx.ExecContext(ctx, "ROLLBACK TO SAVEPOINT one"); err != nil {
			return err
		}
	}
	_, err := t.tx.ExecContext(ctx, "RELEASE SAVEPOINT one")
	return err
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
