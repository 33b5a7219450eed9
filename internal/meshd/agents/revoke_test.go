package agents

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/meshd/standing"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/waittest"
)

// database holds one node, while it can be asked.
type database struct {
	State
	node state.Node
	away error
	hang chan struct{} // until it is closed nobody is told of a node; nil: everybody is at once
}

func (d *database) Node(context.Context, string) (state.Node, error) {
	if d.hang != nil {
		<-d.hang
	}
	return d.node, d.away
}
func (d *database) NodeOf(context.Context, string) (state.Node, error) { return d.node, d.away }
func (d *database) Admin(context.Context, string) (state.Admin, error) { return state.Admin{}, d.away }

func (d *database) RevokeNode(context.Context, string, time.Time) error { return d.away }

// forgetful is a store that is told whom to forget.
type forgetful struct {
	Store
	mu     sync.Mutex // guards forgot
	forgot []string
}

func (f *forgetful) Forget(node string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot = append(f.forgot, node)
}

func (f *forgetful) forgets(node string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Contains(f.forgot, node)
}

// revoking is Agents in front of a database, of which a node has been judged.
func revoking(t *testing.T, db *database, kept *forgetful) *Agents {
	t.Helper()
	st := standing.New(standing.Config{State: db, Now: time.Now})
	log := slog.New(slog.DiscardHandler)
	if _, err := st.Node(t.Context(), db.node.Name, db.node.Generation); err != nil {
		t.Fatal(err)
	}
	return &Agents{Config: Config{
		State: db, Store: kept, Standing: st, Pending: &standing.Pending{Log: log}, Log: log, Now: time.Now,
		Door: door.New(door.Config{Judge: func(context.Context, door.Caller) error { return nil }}),
	}}
}

// A stolen node is shut out before a database has answered that hangs.
func TestRevokeWhileTheDatabaseHangs(t *testing.T) {
	t.Parallel()
	db := &database{
		node: state.Node{Node: snapshot.Node{Name: "stolen"}, Generation: "g1"}, hang: make(chan struct{}),
	}
	kept := &forgetful{}
	a := revoking(t, db, kept)
	revoked := make(chan error, 1)
	go func() {
		_, err := a.Revoke(t.Context(), "stolen")
		revoked <- err
	}()
	waittest.Until(t, "what it said is forgotten", func() bool { return kept.forgets("stolen") })
	if _, err := a.Standing.Node(t.Context(), "stolen", "g1"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("it is believed: %v", err)
	}
	select {
	case err := <-revoked:
		t.Errorf("the database was not asked: %v", err)
	default:
	}
	close(db.hang)
	if err := <-revoked; err != nil {
		t.Error(err)
	}
}

// A stolen node is shut out also while the database cannot be asked who it is.
func TestRevokeWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	db := &database{node: state.Node{Node: snapshot.Node{Name: "stolen"}, Generation: "g1"}}
	kept := &forgetful{}
	a := revoking(t, db, kept)
	db.away = errors.New("no route to the database")
	if _, err := a.Revoke(t.Context(), "unknown"); !errors.Is(err, db.away) {
		t.Errorf("a node of which nothing is known here: %v", err)
	}
	unwritten, err := a.Revoke(t.Context(), "stolen")
	if unwritten != "no route to the database" || err != nil {
		t.Errorf("unwritten %q, %v", unwritten, err)
	}
	if !kept.forgets("stolen") {
		t.Errorf("the store forgot %q", kept.forgot)
	}
	db.away = nil // and nothing is written yet
	if _, err := a.Standing.Node(t.Context(), "stolen", "g1"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("it is believed again: %v", err)
	}
}

// Whoever is read again, as after each interruption of the database, is told of once.
func TestEachRevokedAdministratorIsToldOnce(t *testing.T) {
	a := &Agents{Config: Config{Now: time.Now}}
	one := func(serial string) state.Admin {
		return state.Admin{Serial: serial, Revoked: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	}
	a.TellRevoked([]state.Admin{one("b"), one("a")})
	a.TellRevoked([]state.Admin{one("a"), one("b"), one("c")})
	if got, want := a.revokedAdmins(), []string{"b", "a", "c"}; !slices.Equal(got, want) {
		t.Errorf("agents are told of %v, want %v", got, want)
	}
}
