package agents

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/meshd/standing"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// database holds one node, while it can be asked.
type database struct {
	State
	node state.Node
	away error
}

func (d *database) Node(context.Context, string) (state.Node, error)   { return d.node, d.away }
func (d *database) NodeOf(context.Context, string) (state.Node, error) { return d.node, d.away }
func (d *database) Admin(context.Context, string) (state.Admin, error) { return state.Admin{}, d.away }

func (d *database) RevokeNode(context.Context, string, time.Time) error { return d.away }

// forgetful is a store that is told whom to forget.
type forgetful struct {
	Store
	forgot []string
}

func (f *forgetful) Forget(node string) { f.forgot = append(f.forgot, node) }

// A stolen node is shut out also while the database cannot be asked who it is.
func TestRevokeWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	db := &database{node: state.Node{Node: snapshot.Node{Name: "stolen"}, Generation: "g1"}}
	kept := &forgetful{}
	st := standing.New(standing.Config{State: db, Now: time.Now})
	log := slog.New(slog.DiscardHandler)
	a := &Agents{Config: Config{
		State: db, Store: kept, Standing: st, Endings: &standing.Endings{Log: log}, Log: log, Now: time.Now,
		Door: door.New(door.Doorway{Judge: func(context.Context, door.Caller) error { return nil }}),
	}}
	if _, err := st.Node(t.Context(), "stolen", "g1"); err != nil {
		t.Fatal(err)
	}
	db.away = errors.New("no route to the database")
	if _, err := a.Revoke(t.Context(), "unknown"); !errors.Is(err, db.away) {
		t.Errorf("a node of which nothing is known here: %v", err)
	}
	unwritten, err := a.Revoke(t.Context(), "stolen")
	if unwritten != "no route to the database" || err != nil {
		t.Errorf("unwritten %q, %v", unwritten, err)
	}
	if len(kept.forgot) == 0 || kept.forgot[0] != "stolen" {
		t.Errorf("the store forgot %q", kept.forgot)
	}
	db.away = nil // and nothing is written yet
	if _, err := st.Node(t.Context(), "stolen", "g1"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("it is believed again: %v", err)
	}
}
