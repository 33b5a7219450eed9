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

// endingRetry is how long what could not be written waits for the next attempt.
const endingRetry = 2 * time.Second

// Endings are revocations and cancellations. Each has taken effect in memory before it comes here; one that the state
// file cannot take now is tried until it can. A restart in between forgets it: whoever asked for it is told so.
type Endings struct {
	Log *slog.Logger

	mu        sync.Mutex // guards unwritten, and is held while it is written: what came first is written first
	unwritten []ending
}

type ending struct {
	what  string
	write func(context.Context) error
}

// CarryOut writes an ending. unwritten is why it is not durable yet; err is that there was nothing to end.
func (e *Endings) CarryOut(
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

// Flush writes what waits. Who is let in from now on is let in after it.
func (e *Endings) Flush(ctx context.Context) error {
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

// final says that trying again would not help: there is nothing (any more) that could be ended.
func final(err error) bool { return errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUsed) }

// Waiting names what is not written yet.
func (e *Endings) Waiting() (what []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, one := range e.unwritten {
		what = append(what, one.what)
	}
	return what
}

// Run tries again and again, until ctx ends.
func (e *Endings) Run(ctx context.Context) error {
	retry.Every(ctx, endingRetry, func(ctx context.Context) {
		_ = e.Flush(ctx) // said when it was asked for, and by isthmus check
	})
	return nil
}
