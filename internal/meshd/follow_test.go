package meshd

import (
	"path/filepath"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/meshd/standing"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/state/sqlite"
	"isthmus.dev/isthmus/internal/state/statetest"
	"isthmus.dev/isthmus/internal/store"
)

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
	d.store, err = store.Open(t.Context(), store.Config{Kept: db, Roots: func() []byte { return nil }, Now: time.Now})
	must(t, err)
	_, err = d.standing.Node(t.Context(), "n1", "g1")
	must(t, err)
	must(t, db.Close())
	if err := d.hear(t.Context(), state.Change{}); err == nil {
		t.Error("a state that is away was read")
	}
	if _, err := d.standing.Node(t.Context(), "n1", "g1"); err != nil {
		t.Errorf("the node is not believed any more: %v", err)
	}
}
