package meshd

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"isthmus.dev/isthmus/internal/state"
)

// A revocation that cannot be written is tried until it can, in its order, and nobody is let in before.
func TestEndingsAreWrittenInTheEnd(t *testing.T) {
	t.Parallel()
	full := errors.New("the disk is full")
	var broken error
	var written []string
	e := endings{log: slog.New(slog.DiscardHandler)}
	one := func(what string, err error) ending {
		return ending{what, func(ctx context.Context) error {
			if broken != nil {
				return broken
			}
			written = append(written, what)
			return err
		}}
	}
	broken = full
	asked, gone := context.WithCancel(t.Context())
	gone() // whoever asked hangs up: it is carried out all the same
	for _, what := range []string{"a", "b", "c"} {
		var err error
		if what == "b" {
			err = state.ErrNotFound // joined again meanwhile
		}
		unwritten, failed := e.carryOut(asked, one(what, err))
		if unwritten != "the disk is full" || failed != nil {
			t.Errorf("%s: %q, %v", what, unwritten, failed)
		}
	}
	if err := e.flush(t.Context()); !errors.Is(err, full) {
		t.Errorf("on a full disk: %v", err)
	}
	same(t, "waiting", e.waiting(), []string{"a", "b", "c"})
	broken = nil
	must(t, e.flush(t.Context()))
	same(t, "written", written, []string{"a", "b", "c"})
	same(t, "waiting", e.waiting(), nil)
	// What cannot be ended is said, and not tried again.
	if unwritten, err := e.carryOut(t.Context(), one("d", state.ErrUsed)); unwritten != "" ||
		!errors.Is(err, state.ErrUsed) || len(e.waiting()) > 0 {
		t.Errorf("%q, %v, %v", unwritten, err, e.waiting())
	}
}
