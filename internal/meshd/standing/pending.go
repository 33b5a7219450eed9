package standing

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/state"
)

// pendingRetry is the pause before a failed write is retried.
const pendingRetry = 2 * time.Second

// Pending holds revocations and cancellations that are in effect but not stored. Each is retried until the state
// accepts it. A restart before that forgets it, which whoever requested it is told.
type Pending struct {
	Log *slog.Logger

	mu        sync.Mutex // guards unwritten; held during writes, to keep their order
	unwritten []ending
}

type ending struct {
	what  string
	write func(context.Context) error
}

// CarryOut stores a revocation or cancellation. unwritten says why it is not durable yet. err means that there was
// nothing to revoke or cancel.
func (e *Pending) CarryOut(
	ctx context.Context, what string, write func(context.Context) error,
) (unwritten string, err error) {
	one := ending{what, write}
	e.mu.Lock()
	defer e.mu.Unlock()
	err = one.write(context.WithoutCancel(ctx))
	if err == nil || final(err) {
		return "", err
	}
	e.Log.Error("in force, but not written yet: tried again until it is", "what", one.what, "error", err)
	e.unwritten = append(e.unwritten, one)
	return err.Error(), nil
}

// Flush writes what is pending. Whoever is admitted from now on is admitted after it.
func (e *Pending) Flush(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for len(e.unwritten) > 0 {
		one := e.unwritten[0]
		if err := one.write(context.WithoutCancel(ctx)); err != nil && !final(err) {
			return err
		}
		e.Log.Info("written now", "what", one.what)
		e.unwritten = e.unwritten[1:]
	}
	return nil
}

// final reports whether a retry would not help: there is nothing (any more) to revoke or cancel.
func final(err error) bool { return errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUsed) }

// Waiting names what is not written yet.
func (e *Pending) Waiting() (what []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, one := range e.unwritten {
		what = append(what, one.what)
	}
	return what
}

// Run tries again and again, until ctx ends.
func (e *Pending) Run(ctx context.Context) error {
	retry.Every(ctx, pendingRetry, func(ctx context.Context) {
		_ = e.Flush(ctx) // said when it was asked for, and by isthmus check
	})
	return nil
}
