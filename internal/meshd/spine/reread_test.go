package spine

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/store"
)

// unreadable is a state whose peers cannot be read for a while.
type unreadable struct {
	store.Kept
	broken atomic.Bool
}

func (u *unreadable) Peers(ctx context.Context) ([]state.Peer, error) {
	if u.broken.Load() {
		return nil, errors.New("input/output error")
	}
	return u.Kept.Peers(ctx)
}

// A suspension that was written takes effect although the state could not be read just then.
func TestStateIsReadAgainUntilItCanBe(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	must(t, err)
	defer db.Close()
	kept := &unreadable{Kept: db}
	s, err := store.Open(t.Context(), store.Config{Kept: kept, Roots: func() []byte { return nil }, Now: time.Now})
	must(t, err)
	l := New(Config{Source: s, Log: slog.New(slog.DiscardHandler)})
	must(t, db.SetPeerSuspended(t.Context(), "cards", true))
	kept.broken.Store(true)
	l.reread(t.Context())
	if s.Snapshot().Peers["cards"].Suspended {
		t.Fatal("it was read although it could not be")
	}
	kept.broken.Store(false)
	select {
	case <-l.reloads:
	case <-time.After(30 * time.Second):
		t.Fatal("nobody reads again")
	}
	l.reread(t.Context())
	if !s.Snapshot().Peers["cards"].Suspended {
		t.Error("the suspension is without effect")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
