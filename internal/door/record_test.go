package door

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/state"
)

// hanging are events that are not recorded before they may be.
type hanging struct {
	Events
	may   chan struct{}
	ended []uint64
}

func (h *hanging) BeginEvent(context.Context, state.Event) (uint64, error) {
	<-h.may
	return 7, nil
}

func (h *hanging) EndEvent(_ context.Context, seq uint64, _ state.Event) error {
	h.ended = append(h.ended, seq)
	return nil
}

// Shutting somebody out does not wait for a database that hangs. What it records when it answers in time has its end.
func TestShuttingOutDoesNotWaitForItsRecord(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := &hanging{may: make(chan struct{})}
			d := New(Config{Events: h, Log: slog.New(slog.DiscardHandler)})
			c := &call{Method: Method{Recorded: true, Vital: true, Action: "node revoke"}, notes: &notes{}}
			if err := d.begin(t.Context(), c, nil); err != nil {
				t.Fatal(err)
			}
			if !late {
				close(h.may)
				synctest.Wait()
			}
			if err := d.end(t.Context(), c, nil); err != nil {
				t.Error(err)
			}
			if late {
				close(h.may)
				synctest.Wait()
			}
			if n := len(h.ended); late && n != 0 || !late && (n != 1 || h.ended[0] != 7) {
				t.Errorf("late %v: the ends of %v are recorded", late, h.ended)
			}
		})
	}
}

// One who cannot be judged because the state hangs does not keep another from being shut out.
func TestLookingDoesNotWaitForAStateThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		judge := func(ctx context.Context, c Caller) error {
			if c.Name == "revoked" {
				return status.Error(codes.PermissionDenied, "revoked")
			}
			<-ctx.Done()
			return status.FromContextError(ctx.Err()).Err()
		}
		d := New(Config{Judge: judge})
		ended := map[string]bool{}
		for _, name := range []string{"n1", "revoked", "n2"} {
			caller := Caller{Kind: Node, Name: name, Certificate: &Certificate{}}
			d.open.add(caller, func(error) { ended[name] = true })
		}
		d.Recheck(t.Context())
		if len(ended) != 1 || !ended["revoked"] {
			t.Errorf("ended are %v", ended)
		}
	})
}
