package standing

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	s := New(Config{State: db})
	db.midst = func() {
		db.node.Revoked = time.Now()
		s.Forget("n")
	}
	_, err := s.Node(t.Context(), "n", "g1")
	if err != nil {
		t.Fatal(err)
	}
	db.midst = nil
	for range 2 {
		_, err = s.Node(t.Context(), "n", "g1")
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("a revoked node: %v", err)
		}
	}
	s.Forget("another")
	if _, err = s.Node(t.Context(), "n", "g1"); db.reads != 2 {
		t.Errorf("read %d times, %v; want 2", db.reads, err)
	}
}
