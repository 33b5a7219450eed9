package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"isthmus.dev/isthmus/internal/state"
)

const (
	// lookAgain is how often a listener reads changes without a notification.
	lookAgain = 10 * time.Second
	// listenRetry is the pause before a lost connection is made again.
	listenRetry = 200 * time.Millisecond
)

// listen notifies watchers of changes by other processes, until Close.
func (e *engine) listen(ctx context.Context, cfg *pgx.ConnConfig) error {
	l := &listener{e: e, cfg: cfg}
	conn, err := l.connect(ctx)
	if err != nil {
		return err
	}
	if err := conn.QueryRow(ctx, "SELECT coalesce(max(seq), 0) FROM changes").Scan(&l.last); err != nil {
		return err
	}
	ctx, e.stop = context.WithCancel(context.WithoutCancel(ctx))
	e.listening.Go(func() { l.run(ctx, conn) })
	return nil
}

// listener follows the changes.
type listener struct {
	e    *engine
	cfg  *pgx.ConnConfig
	last int64 // the last change that was read
}

func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	cfg := l.cfg.Copy()
	if err := l.e.cfg.authenticate(ctx, cfg); err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, "LISTEN isthmus_changes"); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// run reads changes after each notification, and first of all after each connection, because notifications are not
// repeated.
func (l *listener) run(ctx context.Context, conn *pgx.Conn) {
	for ctx.Err() == nil {
		err := l.follow(ctx, conn)
		_ = conn.Close(context.WithoutCancel(ctx))
		for ctx.Err() == nil && err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(listenRetry):
			}
			conn, err = l.connect(ctx)
		}
	}
}

// follow reads changes until the connection is lost.
func (l *listener) follow(ctx context.Context, conn *pgx.Conn) error {
	for {
		if err := l.read(ctx, conn); err != nil {
			return err
		}
		wait, cancel := context.WithTimeout(ctx, lookAgain)
		_, err := conn.WaitForNotification(wait)
		over := wait.Err() != nil
		cancel()
		if err != nil && (ctx.Err() != nil || !over) {
			return err
		}
	}
}

// read passes on the changes since its last call. If some have been pruned meanwhile, it reports a change of
// everything.
func (l *listener) read(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, lookAgain)
	defer cancel()
	var first, last int64
	err := conn.QueryRow(ctx, "SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM changes").Scan(&first, &last)
	if err != nil || last == l.last {
		return err
	}
	if last < l.last || first > l.last+1 {
		l.e.watchers.Tell([]state.Change{{}})
		l.last = last
		return nil
	}
	rows, err := conn.Query(ctx, "SELECT seq, topic, key FROM changes WHERE seq > $1 AND origin <> $2 ORDER BY seq",
		l.last, l.e.origin)
	if err != nil {
		return err
	}
	var changes []state.Change
	var c state.Change
	var seq int64
	if _, err := pgx.ForEachRow(rows, []any{&seq, (*string)(&c.Topic), &c.Key}, func() error {
		changes = append(changes, c)
		last = max(last, seq)
		return nil
	}); err != nil {
		return err
	}
	l.last = last
	l.e.watchers.Tell(changes)
	return nil
}
