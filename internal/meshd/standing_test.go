package meshd

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// changing is a state in which something happens while a node is read.
type changing struct {
	node  state.Node
	reads int
	midst func()
}

func (c *changing) NodeOf(context.Context, string) (state.Node, error) {
	n := c.node
	c.reads++
	if c.midst != nil {
		c.midst()
	}
	return n, nil
}

func (c *changing) Admin(context.Context, string) (state.Admin, error) {
	return state.Admin{}, state.ErrNotFound
}

// What was read while the node was being revoked is not kept.
func TestStandingIsNotOutOfDate(t *testing.T) {
	t.Parallel()
	db := &changing{node: state.Node{Node: snapshot.Node{Name: "n"}}}
	s := newStandings(db)
	db.midst = func() {
		db.node.Revoked = time.Now()
		s.forget("n")
	}
	_, err := s.node(t.Context(), "n", "g1")
	must(t, err)
	db.midst = nil
	for range 2 {
		_, err = s.node(t.Context(), "n", "g1")
		wantCode(t, "a revoked node", err, codes.PermissionDenied)
	}
	s.forget("another")
	if _, err = s.node(t.Context(), "n", "g1"); db.reads != 2 {
		t.Errorf("read %d times, %v; want 2", db.reads, err)
	}
}
