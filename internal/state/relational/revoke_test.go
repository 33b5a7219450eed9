package relational_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// A revocation is one change: whichever of its statements fails, nothing of it has happened, and it happens when it is
// tried again.
func TestRevocationFailsWholeOrNotAtAll(t *testing.T) {
	for _, fault := range []string{"UPDATE ON nodes", "DELETE ON workloads", "UPDATE ON tokens"} {
		t.Run(fault, func(t *testing.T) {
			ctx := t.Context()
			d, e := opened(t)
			_, pool := e.Pools()
			err := errors.Join(
				d.AttestNode(ctx, state.Node{
					Node: snapshot.Node{Name: "n1", Role: snapshot.RoleNode}, Generation: "g1",
					Attested: noon,
				}),
				d.RegisterNode(ctx, state.Registration{
					Node:      snapshot.Node{Name: "n1"},
					Workloads: []snapshot.Workload{{Name: "web", Namespace: "shop"}},
				}, noon),
				d.AddToken(ctx,
					state.Token{
						ID: "spare", Node: "n1", Role: snapshot.RoleNode, Created: noon,
						Expires: noon.Add(time.Hour),
					}),
			)
			if err != nil {
				t.Fatal(err)
			}
			// A trigger of this connection alone, which is no part of the file.
			if _, err := pool.ExecContext(ctx,
				fmt.Sprintf("CREATE TEMP TRIGGER fault BEFORE %s BEGIN SELECT raise(ABORT, 'injected'); END",
					fault)); err != nil {
				t.Fatal(err)
			}
			outcome := func() (revoked bool, workloads, open int) {
				t.Helper()
				n, err1 := d.Node(ctx, "n1")
				r, err2 := d.Registry(ctx)
				tokens, err3 := d.Tokens(ctx)
				if err := errors.Join(err1, err2, err3); err != nil {
					t.Fatal(err)
				}
				if tokens[0].Cancelled.IsZero() {
					open++
				}
				return !n.Revoked.IsZero(), len(r.Workloads), open
			}
			if err := d.RevokeNode(ctx, "n1", noon); err == nil {
				t.Error("it was said to be done")
			}
			if revoked, workloads, open := outcome(); revoked || workloads != 1 || open != 1 {
				t.Errorf("half of it was done: revoked %t, %d workloads, %d open tokens", revoked, workloads, open)
			}
			if _, err := pool.ExecContext(ctx, "DROP TRIGGER fault"); err != nil {
				t.Fatal(err)
			}
			if err := d.RevokeNode(ctx, "n1", noon); err != nil {
				t.Fatal(err)
			}
			if revoked, workloads, open := outcome(); !revoked || workloads != 0 || open != 0 {
				t.Errorf("tried again: revoked %t, %d workloads, %d open tokens", revoked, workloads, open)
			}
		})
	}
}
