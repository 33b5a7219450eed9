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
// accepts it. A restart before that forgets it; the response to the request says so.
type Pending struct {
	Log *slog.Logger

	mu        sync.Mutex // guards unwritten; held during writes, to keep their order
	unwritten []pendingWrite
}

type pendingWrite struct {
	what  string
	write func(context.Context) error
}

// CarryOut stores a revocation or cancellation. unwritten says why it is not durable yet. err means that there was
// nothing to revoke or cancel.
func (p *Pending) CarryOut(
	ctx context.Context, what string, write func(context.Context) error,
) (unwritten string, err error) {
	one := pendingWrite{what, write}
	p.mu.Lock()
	defer p.mu.Unlock()
	err = one.write(context.WithoutCancel(ctx))
	if err == nil || final(err) {
		return "", err
	}
	p.Log.Error("in force, but not stored yet: trying again", "what", one.what, "error", err)
	p.unwritten = append(p.unwritten, one)
	return err.Error(), nil
}

// Flush writes what is pending. Whoever is admitted from now on is admitted after it.
func (p *Pending) Flush(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.unwritten) > 0 {
		one := p.unwritten[0]
		if err := one.write(context.WithoutCancel(ctx)); err != nil && !final(err) {
			return err
		}
		p.Log.Info("written now", "what", one.what)
		p.unwritten = p.unwritten[1:]
	}
	return nil
}

// final reports whether a retry would not help: there is nothing (any more) to revoke or cancel.
func final(err error) bool { return errors.Is(err, state.ErrNotFound) || errors.Is(err, state.ErrUsed) }

// Waiting names what is not written yet.
func (p *Pending) Waiting() (what []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range p.unwritten {
		what = append(what, one.what)
	}
	return what
}

// Run tries again and again, until ctx ends.
func (p *Pending) Run(ctx context.Context) error {
	retry.Every(ctx, pendingRetry, func(ctx context.Context) {
		_ = p.Flush(ctx) // said when it was asked for, and by isthmus check
	})
	return nil
}
