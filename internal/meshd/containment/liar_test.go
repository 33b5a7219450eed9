package containment

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// lies are quarantines that a node has by its own word, one at each of its sidecars, all of different objects.
func lies(node string, n int) (all []state.Quarantine) {
	for i := range n {
		all = append(all, state.Quarantine{
			Proxy:   fmt.Sprintf("%s/default/w%d", node, i),
			Object:  snapshot.Key{Kind: "AuthorizationPolicy", Namespace: "default", Name: fmt.Sprint("p", i)},
			Content: "c", Reason: "it said so",
		})
	}
	return all
}

// Each plan is a mesh that is compiled beside the others at every change: one node has few of them, however many
// proxies it has.
func TestANodeHasFewPlans(t *testing.T) {
	t.Parallel()
	c := &Containment{wards: map[string]*proxyState{}}
	for _, q := range slices.Concat(lies("liar", 100), lies("honest", 3)) {
		w := c.proxy(q.Proxy)
		w.quarantined[q.Object] = q
	}
	for i := range 100 {
		c.proxy(fmt.Sprintf("held/default/w%d", i)).held = true
		c.proxy(fmt.Sprintf("held/default/w%d", i)).lastGood = &sentConfig{config: &snapshot.Config{}}
	}
	plans := map[string]Plan{}
	for name, w := range c.wards {
		plans[name] = c.planOf(w)
	}
	limitPlans(plans)
	distinct := map[string]map[string]bool{"liar": {}, "honest": {}, "held": {}}
	for name, p := range plans {
		distinct[model.NodeOfProxy(name)][p.ID()] = true
	}
	if len(plans) != 203 || len(distinct["liar"]) != 1 || len(distinct["honest"]) != 3 || len(distinct["held"]) != 4 {
		t.Errorf("%d plans; of the liar %d, of the honest %d, of those held %d", len(plans), len(distinct["liar"]),
			len(distinct["honest"]), len(distinct["held"]))
	}
	if got := plans["liar/default/w7"].Closed; len(got) != 100 {
		t.Errorf("%d objects are closed at one of the liar's, want those of all", len(got))
	}
	if got := plans["honest/default/w1"].Closed; len(got) != 1 || got[0].Name != "p1" {
		t.Errorf("closed at an honest one: %v", got)
	}
}

// record is a state that keeps events alone.
type record struct{ events []state.Event }

func (*record) Quarantines(context.Context) ([]state.Quarantine, error) { return nil, nil }

func (*record) ChangeQuarantines(context.Context, []state.Quarantine, []state.Quarantine) error {
	return nil
}

func (r *record) Record(_ context.Context, e state.Event) error {
	r.events = append(r.events, e)
	return nil
}

// However often a node says that its Envoy cannot run with something, the record of actions is not filled with it.
func TestALiarDoesNotFillTheRecord(t *testing.T) {
	t.Parallel()
	r := &record{}
	c, err := New(t.Context(), Config{
		State: r, Contained: func([]snapshot.Contained) {}, Log: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		c.keep(lies("liar", 50), nil)
		c.keep(nil, lies("liar", 50))
	}
	c.keep(lies("honest", 2), nil)
	c.write(t.Context())
	more := slices.ContainsFunc(r.events, func(e state.Event) bool {
		return e.Object == "more objects" &&
			e.Detail == "at proxies of node liar: more than are recorded, see the log of the control plane"
	})
	if len(r.events) > 100+1+2 || !more {
		t.Errorf("%d events; that there are more is said: %v", len(r.events), more)
	}
	if last := r.events[len(r.events)-1]; last.Object != "AuthorizationPolicy default/p1" {
		t.Errorf("the last event: %+v", last)
	}
}

// hanging is a state that keeps nothing before it may.
type hanging struct {
	record
	may chan struct{}
}

func (h *hanging) ChangeQuarantines(context.Context, []state.Quarantine, []state.Quarantine) error {
	<-h.may
	return nil
}

// A proxy that is gone is forgotten at once although its quarantine cannot be written, and that is written when it can
// be, also where the control plane ends meanwhile.
func TestNobodyWaitsForQuarantinesToBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hanging{may: make(chan struct{})}
		c, err := New(t.Context(), Config{
			State: h, Contained: func([]snapshot.Contained) {}, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		for _, q := range lies("gone", 2) {
			c.proxy(q.Proxy).quarantined[q.Object] = q
		}
		c.Retain(nil)
		synctest.Wait()
		if len(c.wards) != 0 || len(h.events) != 0 {
			t.Errorf("%d proxies are known, %d events are recorded", len(c.wards), len(h.events))
		}
		stop()
		close(h.may)
		<-ended
		if len(h.events) != 2 {
			t.Errorf("%d events are recorded, want 2", len(h.events))
		}
	})
}
