package admin

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/meshd/standing"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// database holds one administrator, while it can be asked.
type database struct {
	State
	admin state.Admin
	away  error
	hangs bool // when it is asked for all, until its caller gives up
}

func (d *database) Admins(ctx context.Context) ([]state.Admin, error) {
	if d.hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return []state.Admin{d.admin}, d.away
}
func (d *database) Admin(context.Context, string) (state.Admin, error) { return d.admin, d.away }
func (d *database) NodeOf(context.Context, string) (state.Node, error) { return state.Node{}, d.away }

func (d *database) RevokeAdmins(context.Context, string, string, time.Time) error { return d.away }

// told is the agents, who are told whose certificates were revoked.
type told struct {
	Agents
	revoked []state.Admin
}

func (t *told) TellRevoked(more []state.Admin) { t.revoked = append(t.revoked, more...) }

// A stolen certificate is shut out also while the database cannot be asked whose there are.
func TestAdminRevokeWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	now := func() time.Time { return noon }
	db := &database{admin: state.Admin{Generation: "g1", Name: "alice", Serial: "1f", NotAfter: noon.Add(time.Hour)}}
	st := standing.New(standing.Config{State: db, Trusts: func([][]*x509.Certificate) bool { return true }, Now: now})
	agents := &told{}
	a := &Admin{Config: Config{
		State: db, Standing: st, Pending: &standing.Pending{Log: slog.New(slog.DiscardHandler)}, Agents: agents,
		Now:  now,
		Door: door.New(door.Config{Judge: st.Judge}),
	}}
	td, err := spiffe.ParseTrustDomain("cards.example")
	if err != nil {
		t.Fatal(err)
	}
	id, err := spiffe.Admin(td, "alice")
	if err != nil {
		t.Fatal(err)
	}
	alice := door.Caller{
		Kind: door.Administrator, Name: "alice", ID: id,
		Certificate: &door.Certificate{Generation: "g1", NotAfter: db.admin.NotAfter},
	}
	if err := st.Judge(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	db.away = errors.New("no route to the database")
	if _, err := a.AdminRevoke(t.Context(), &adminapi.AdminRevokeRequest{Name: "bob"}); !errors.Is(err, db.away) {
		t.Errorf("one of whom nothing is known here: %v", err)
	}
	db.hangs = true
	got, err := a.AdminRevoke(t.Context(), &adminapi.AdminRevokeRequest{Name: "alice"})
	if err != nil || len(got.Admins) != 1 || got.Unwritten != "no route to the database" || len(agents.revoked) != 1 {
		t.Fatalf("%+v, %v; agents were told %v", got, err, agents.revoked)
	}
	db.away, db.hangs = nil, false // and nothing is written yet
	if err := st.Judge(t.Context(), alice); status.Code(err) != codes.PermissionDenied {
		t.Errorf("it is believed again: %v", err)
	}
}
