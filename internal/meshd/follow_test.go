package meshd

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/meshd/standing"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/state/statetest"
	"isthmus.dev/isthmus/internal/store"
)

// Whatever can be written to the state takes effect, in one way.
func TestEveryTopicIsFollowed(t *testing.T) {
	t.Parallel()
	for _, topic := range state.Topics {
		n := 0
		for _, f := range followers {
			if f.all != nil && slices.Contains(f.topics, topic) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d followers read what is written under %q, want 1", n, topic)
		}
	}
	if followerOf(state.Everything) != nil {
		t.Error("one follower is taken for all")
	}
}

// Changes that are applied by reading the same are applied once; who is told of its own is told of others' too.
func TestChangesAreFolded(t *testing.T) {
	t.Parallel()
	for c, want := range map[state.Change]state.Change{
		{}:                               {},
		{Topic: "nodes", Key: "a"}:       {Topic: "nodes", Key: "a"},
		{Topic: "agents", Key: "a"}:      {Topic: "agents", Key: "a"},
		{Topic: "peers", Key: "a"}:       {Topic: "peers"},
		{Topic: "invitations"}:           {Topic: "peers"},
		{Topic: "authority", Here: true}: {Topic: "authority"},
		{Topic: "admins", Key: "a"}:      {Topic: "admins"},
		{Topic: "addresses", Here: true}: {Topic: "addresses", Here: true},
	} {
		if got := folded(c); got != want {
			t.Errorf("%+v: %+v, want %+v", c, got, want)
		}
	}
}

// Where it is not known what was written, everything is read again. A state that is away makes nobody a stranger
// meanwhile: a node that cannot be judged could not be shut out either.
func TestNobodyIsForgottenWhileTheStateIsAway(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(t.Context(), filepath.Join(statetest.Dir(t), "state.db"))
	must(t, err)
	must(t, db.AttestNode(t.Context(), state.Node{
		Node: snapshot.Node{Name: "n1", Role: snapshot.RoleNode}, Generation: "g1", Attested: time.Now(),
	}))
	d := &Daemon{db: db, standing: standing.New(standing.Config{State: db, Now: time.Now})}
	d.store, err = store.Open(t.Context(), store.Config{
		Kept: db, Roots: func() []byte { return nil }, Now: time.Now, Ended: func(string) bool { return false },
	})
	must(t, err)
	_, err = d.standing.Node(t.Context(), "n1", "g1")
	must(t, err)
	must(t, db.Close())
	if err := d.applyChange(t.Context(), state.Change{}); err == nil {
		t.Error("a state that is away was read")
	}
	if _, err := d.standing.Node(t.Context(), "n1", "g1"); err != nil {
		t.Errorf("the node is not believed any more: %v", err)
	}
}

// unreadable is a state whose peers cannot be read for a while.
type unreadable struct {
	store.Kept
	broken atomic.Bool
	asked  atomic.Int64
}

func (u *unreadable) Peers(ctx context.Context) ([]state.Peer, error) {
	u.asked.Add(1)
	if u.broken.Load() {
		return nil, errors.New("input/output error")
	}
	return u.Kept.Peers(ctx)
}

// A suspension that was written takes effect although the state could not be read just then.
func TestStateIsReadAgainUntilItCanBe(t *testing.T) {
	t.Parallel()
	db, err := sqlite.Open(t.Context(), filepath.Join(statetest.Dir(t), "state.db"))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	kept := &unreadable{Kept: db}
	d := &Daemon{db: db, log: slog.New(slog.DiscardHandler)}
	d.store, err = store.Open(t.Context(), store.Config{
		Kept: kept, Roots: func() []byte { return nil }, Now: time.Now, Ended: func(string) bool { return false },
	})
	must(t, err)
	kept.broken.Store(true)
	d.changes = db.Watch(t.Context())
	var following sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	following.Go(func() { _ = d.followState(ctx) })
	t.Cleanup(func() { stop(); following.Wait() })
	before := kept.asked.Load()
	must(t, db.SetPeerSuspended(t.Context(), "cards", true))
	eventually(t, "it is asked in vain", func() bool { return kept.asked.Load() > before })
	if d.store.Snapshot().Peers["cards"].Suspended {
		t.Fatal("it was read although it could not be")
	}
	kept.broken.Store(false)
	eventually(t, "the suspension is in effect", func() bool { return d.store.Snapshot().Peers["cards"].Suspended })
}
