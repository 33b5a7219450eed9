package spine

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"isthmus.dev/isthmus/internal/meshd/containment"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/waittest"
)

// waiting is a source whose registrations that waited take as long as they are told to.
type waiting struct {
	changed chan struct{}
	settle  chan error // each takes one outcome
	begun   int
}

func (w *waiting) Snapshot() *snapshot.Snapshot {
	return &snapshot.Snapshot{Config: &snapshot.Config{}, Registry: &snapshot.Registry{}}
}

func (w *waiting) Changed() <-chan struct{} { return w.changed }

func (w *waiting) Settle(context.Context) error {
	w.begun++
	return <-w.settle
}

// nothing is in quarantine.
type nothing struct{ containment.State }

func (nothing) Quarantines(context.Context) ([]state.Quarantine, error) { return nil, nil }

// Changes are published while registrations that waited cannot be written because the state is away, and those are
// tried until they are written.
func TestNobodyWaitsForRegistrationsThatWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := slog.New(slog.DiscardHandler)
		c, err := containment.New(t.Context(), containment.Config{
			State: nothing{}, Contained: func([]snapshot.Contained) {}, Log: log, Now: time.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		w := &waiting{changed: make(chan struct{}, 1), settle: make(chan error)}
		applied := 0
		l := New(Config{Source: w, Containment: c, Applied: func(time.Duration) { applied++ }, Log: log})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- l.Run(ctx) }()
		for n := range 3 {
			w.changed <- struct{}{}
			waittest.Advance(5 * time.Second)
			if applied != n+1 || w.begun != 1 {
				t.Errorf("%d changes applied of %d, while %d registrations wait", applied, n+1, w.begun)
			}
		}
		w.settle <- errors.New("no route to the database")
		waittest.Advance(5 * time.Second)
		if w.begun != 2 {
			t.Errorf("tried %d times, want 2", w.begun)
		}
		w.settle <- nil // late, so that more may have become free meanwhile
		waittest.Advance(5 * time.Second)
		if w.begun != 3 {
			t.Errorf("tried %d times, want 3", w.begun)
		}
		w.settle <- nil
		waittest.Advance(5 * time.Second)
		stop()
		<-ended
		close(w.settle)
	})
}
