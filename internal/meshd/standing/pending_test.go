package standing

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"

	"isthmus.dev/isthmus/internal/state"
)

// A revocation that cannot be written is tried until it can, in its order, and nobody is let in before.
func TestEndingsAreWrittenInTheEnd(t *testing.T) {
	t.Parallel()
	full := errors.New("the disk is full")
	var broken error
	var written []string
	e := Pending{Log: slog.New(slog.DiscardHandler)}
	carryOut := func(ctx context.Context, what string, err error) (string, error) {
		return e.CarryOut(ctx, what, func(context.Context) error {
			if broken != nil {
				return broken
			}
			written = append(written, what)
			return err
		})
	}
	broken = full
	asked, gone := context.WithCancel(t.Context())
	gone() // whoever asked hangs up: it is carried out all the same
	for _, what := range []string{"a", "b", "c"} {
		var err error
		if what == "b" {
			err = state.ErrNotFound // joined again meanwhile
		}
		unwritten, failed := carryOut(asked, what, err)
		if unwritten != "the disk is full" || failed != nil {
			t.Errorf("%s: %q, %v", what, unwritten, failed)
		}
	}
	if err := e.Flush(t.Context()); !errors.Is(err, full) {
		t.Errorf("on a full disk: %v", err)
	}
	same(t, "waiting", e.Waiting(), []string{"a", "b", "c"})
	broken = nil
	if err := e.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	same(t, "written", written, []string{"a", "b", "c"})
	same(t, "waiting", e.Waiting(), nil)
	// What cannot be ended is said, and not tried again.
	if unwritten, err := carryOut(t.Context(), "d", state.ErrUsed); unwritten != "" ||
		!errors.Is(err, state.ErrUsed) || len(e.Waiting()) > 0 {
		t.Errorf("%q, %v, %v", unwritten, err, e.Waiting())
	}
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}
