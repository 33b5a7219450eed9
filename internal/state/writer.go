package state

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// maxTogether bounds how many deeds share one transaction.
const maxTogether = 512

var errClosed = errors.New("it is closed")

// deed is one change that somebody waits for.
type deed struct {
	name  string
	do    func(context.Context, tx) error
	whole bool       // one statement: it happens or not, whatever becomes of others
	done  chan error // takes one answer
}

// writer carries out all deeds, one after the other, in one goroutine. What comes while it writes to the disk waits and shares
// the next transaction, and so the next write: nobody is answered before what they asked for is durable.
type writer struct {
	deeds   chan deed     // unbuffered: who is heard is answered
	stopped sync.Once     // closes closing
	closing chan struct{} // closed by stop
	ended   chan struct{} // closed when nothing is written any more
}

func (d *DB) startWriter() {
	d.writer = &writer{deeds: make(chan deed), closing: make(chan struct{}), ended: make(chan struct{})}
	go d.carryOutAll(d.writer)
}

// stop ends the writer, once it has answered whom it heard.
func (w *writer) stop() {
	if w != nil {
		w.stopped.Do(func() { close(w.closing) })
		<-w.ended
	}
}

// ask has a deed carried out and waits until it is durable. A caller whose ctx ends before the writer has heard of the deed
// leaves it undone; one whose ctx ends later waits all the same, since the deed happens.
func (d *DB) ask(ctx context.Context, one deed) error {
	one.done = make(chan error, 1)
	if err := ctx.Err(); err != nil {
		return d.fail(one.name, err)
	}
	select {
	case d.writer.deeds <- one:
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
		case first := <-w.deeds:
			runtime.Gosched() // who is ready to ask, asks
			d.carryOut(w.gather(first))
		case <-w.closing:
			return
		}
	}
}

// gather is a deed and all that wait beside it.
func (w *writer) gather(first deed) []deed {
	all := []deed{first}
	for len(all) < maxTogether {
		select {
		case next := <-w.deeds:
			all = append(all, next)
		default:
			return all
		}
	}
	return all
}

func (d *DB) carryOut(deeds []deed) {
	errs := make([]error, len(deeds))
	if err := d.together(context.Background(), deeds, errs); err != nil { // no caller's: it is for all of them
		for i := range errs {
			if errs[i] == nil {
				errs[i] = d.fail(deeds[i].name, err)
			}
		}
	}
	for i, one := range deeds {
		one.done <- errs[i]
	}
}

// together carries out deeds in one transaction. One that fails leaves the others alone, unless it spoils the transaction;
// then none has happened.
func (d *DB) together(ctx context.Context, deeds []deed, errs []error) error {
	t, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for i, one := range deeds {
		var spoilt error
		if errs[i], spoilt = (tx{d, t}).apart(ctx, one); spoilt != nil {
			return errors.Join(spoilt, ignoreDone(t.Rollback()))
		}
	}
	return t.Commit()
}

// apart carries out one deed so that it can fail alone. spoilt says that the transaction is no more.
func (t tx) apart(ctx context.Context, one deed) (err, spoilt error) {
	if one.whole {
		err = one.do(ctx, t)
		return err, spoils(err)
	}
	if _, spoilt = t.exec(ctx, "begin-deed"); spoilt != nil {
		return nil, spoilt
	}
	if err = one.do(ctx, t); err != nil {
		if spoilt = spoils(err); spoilt != nil {
			return err, spoilt
		}
		if _, spoilt = t.exec(ctx, "undo-deed"); spoilt != nil {
			return err, spoilt
		}
	}
	_, spoilt = t.exec(ctx, "end-deed")
	return err, spoilt
}

// spoils is err where SQLite may have undone the whole transaction because of it (sqlite.org/lang_transaction.html §3): all
// of its errors but a broken constraint.
func spoils(err error) error {
	var e *sqlite.Error
	if broken := errors.As(err, &e) && e.Code()&0xff != sqlite3.SQLITE_CONSTRAINT; !broken && !errors.Is(err, ErrDamaged) {
		return nil
	}
	return fmt.Errorf("given up with another change that failed: %w", err)
}

func ignoreDone(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}
