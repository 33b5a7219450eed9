package meshd

import (
	"context"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// changing is a state in which something happens while a node is read.
type changing struct {
	node  state.Node
	reads int
	midst func()
}

func (c *changing) Node(context.Context, string) (state.Node, error) {
	n := c.node
	c.reads++
	if c.midst != nil {
		c.midst()
	}
	return n, nil
}

func (c *changing) Blob(context.Context, string) (state.Blob, error) {
	return state.Blob{}, state.ErrNotFound
}

// What was read while the node was being revoked is not kept.
func TestStandingIsNotOutOfDate(t *testing.T) {
	t.Parallel()
	db := &changing{node: state.Node{Node: snapshot.Node{Name: "n"}}}
	s := standings{db: db, known: map[string]standing{}}
	db.midst = func() {
		db.node.Revoked = time.Now()
		s.forget("n")
	}
	_, err := s.of(t.Context(), "n")
	must(t, err)
	db.midst = nil
	st, err := s.of(t.Context(), "n")
	must(t, err)
	if st.Revoked.IsZero() {
		t.Error("a revoked node stands as it did")
	}
	if _, err := s.of(t.Context(), "n"); err != nil || db.reads != 2 {
		t.Errorf("read %d times, %v; want 2", db.reads, err)
	}
}
