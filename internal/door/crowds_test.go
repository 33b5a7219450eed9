package door

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/waittest"
)

// Whoever opens calls and says nothing keeps nobody out for longer than a moment, from however many addresses.
func TestCallsThatSayNothingGiveWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimits()
		ended := map[int]bool{}
		from := func(i int) *call {
			a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			m := Method{AtOnce: 2, InAll: 4}
			return &call{
				name: "join", Method: m, caller: Caller{Kind: Stranger, Addr: a},
				end: func() { ended[i] = true },
			}
		}
		take := func(c *call, want bool) {
			t.Helper()
			if err := l.take(c); (err == nil) != want {
				t.Fatalf("taken %v, want %v: %v", err == nil, want, err)
			}
		}
		calls := []*call{from(0), from(1), from(2), from(3)}
		for _, c := range calls {
			take(c, true)
		}
		l.heard(calls[0])
		take(from(4), false) // nobody has had time enough
		waittest.Advance(handshakeGrace)
		take(from(4), true)
		if ended[0] || !ended[1] || ended[2] {
			t.Errorf("ended: %v, want the oldest that had said nothing", ended)
		}
		l.leave(calls[1]) // its context has ended: it counts no more
		ended = map[int]bool{}
		take(from(4), true) // in place of calls[2]
		if !ended[2] {
			t.Errorf("ended: %v, want the oldest that had said nothing", ended)
		}
		take(from(4), false) // of one address there are two, and neither has had time enough
		waittest.Advance(handshakeGrace)
		take(from(4), true)
		for range 10 {
			waittest.Advance(handshakeGrace)
			take(from(9), true)
		}
		if all := l.now[limitKey{method: "join"}]; all != 4 {
			t.Errorf("%d calls count, want 4", all)
		}
		if ended[0] {
			t.Error("a call that was heard gave way")
		}
	})
}

type written struct {
	Events
	all []state.Event
}

func (w *written) Record(_ context.Context, e state.Event) error {
	w.all = append(w.all, e)
	return nil
}

// However many kinds of refusal one caller invents between two writes, those of others keep their details.
func TestOneCallersRefusalsHideNobodysElse(t *testing.T) {
	w := &written{}
	r := &Refusals{Events: w}
	for i := range 10_000 {
		r.Add(state.Event{
			Actor: "node stolen", From: fmt.Sprintf("2001:db8::%x", i), Action: "call", Object: fmt.Sprint("/x/", i),
		})
		r.Add(state.Event{Actor: state.Stranger, From: "192.0.2.1", Action: "call", Object: fmt.Sprint("/x/", i)})
	}
	r.Add(state.Event{Actor: state.Stranger, From: "192.0.2.2", Action: "node join", Object: "token", Detail: "used"})
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	times, seen := 0, false
	for _, e := range w.all {
		times += e.Count
		seen = seen || e.From == "192.0.2.2" && e.Action == "node join" && e.Object == "token" && e.Detail == "used"
	}
	if times != 20_001 || len(w.all) > 200 || !seen {
		t.Errorf("%d refusals in %d rows; another's details: %v", times, len(w.all), seen)
	}
}
