package federation

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Which gateway is tried first, and which last, by what is known of them.
func TestOrderOfRoads(t *testing.T) {
	noon := time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)
	all := []Gateway{{Name: "a"}, {Name: "b"}, {Name: "c"}}
	for name, tt := range map[string]struct {
		known  func(r *gatewayMemory)
		asked  string
		later  time.Duration
		among  []Gateway
		want   string // the order; suspects in brackets
		leaves int    // how many gateways it is remembered of that they did not answer
	}{
		"nothing is known": {func(*gatewayMemory) {}, "x", 0, all, "a b c", 0},
		"one led there": {
			func(r *gatewayMemory) { r.recordSuccess("x", "c", nil, noon); r.recordSuccess("y", "b", nil, noon) }, "x",
			0,
			all, "c b a", 0,
		},
		"one led elsewhere": {func(r *gatewayMemory) { r.recordSuccess("y", "b", nil, noon) }, "x", 0, all, "b a c", 0},
		"one is silent": {
			func(r *gatewayMemory) { r.recordSilence("a", noon) }, "x", time.Minute - 1, all,
			"b c [a]", 1,
		},
		"a minute later": {func(r *gatewayMemory) { r.recordSilence("a", noon) }, "x", time.Minute, all, "a b c", 1},
		"a clock set back": {
			func(r *gatewayMemory) { r.recordSilence("a", noon) }, "x", -time.Minute, all, "a b c",
			1,
		},
		"one was overtaken": {
			func(r *gatewayMemory) { r.recordSuccess("x", "b", []string{"a"}, noon) }, "x", 0, all,
			"b c [a]", 1,
		},
		"it answers again": {
			func(r *gatewayMemory) { r.recordSilence("a", noon); r.recordSuccess("y", "a", nil, noon) }, "x", 0, all,
			"a b c", 0,
		},
		"one led there in vain": {
			func(r *gatewayMemory) { r.recordSuccess("x", "a", nil, noon); r.recordDeadEnd("x", "a", noon) }, "x", 0,
			all, "b c a", 0,
		},
		"in vain, elsewhere": {
			func(r *gatewayMemory) { r.recordDeadEnd("y", "a", noon) }, "x", 0, all, "a b c",
			0,
		},
		"in vain, a minute later": {
			func(r *gatewayMemory) { r.recordDeadEnd("x", "a", noon) }, "x", time.Minute, all,
			"a b c", 0,
		},
		"in vain before silent": {
			func(r *gatewayMemory) { r.recordSilence("b", noon); r.recordDeadEnd("x", "a", noon) }, "x", 0, all,
			"c a [b]", 1,
		},
		"acceptances are alike": {
			func(r *gatewayMemory) {
				r.recordSuccess("bootstrap.1.x", "c", nil, noon)
				r.recordSuccess("y", "b", nil,
					noon)
			}, "bootstrap.2.x", 0,
			all, "c b a", 0,
		},
		"one has gone": {
			func(r *gatewayMemory) { r.recordSilence("a", noon); r.recordSilence("b", noon) }, "x", 0,
			all[1:], "c [b]", 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newGatewayMemory()
			tt.known(r)
			order, suspects := r.order(tt.among, tt.asked, noon.Add(tt.later))
			var got []string
			for _, g := range order {
				if suspects[g.Name] {
					got = append(got, "["+g.Name+"]")
				} else {
					got = append(got, g.Name)
				}
			}
			if s := strings.Join(got, " "); s != tt.want || len(r.unanswered) != tt.leaves {
				t.Errorf("%s, and %d did not answer; want %s, and %d", s, len(r.unanswered), tt.want, tt.leaves)
			}
		})
	}
}

// after leads there, or fails, once some time has passed.
func after(d time.Duration, err error) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(d):
		}
		if err != nil {
			return nil, err
		}
		return leads(ctx)
	}
}

// How long a call waits for one gateway depends on whether there are others, and on whether it answered lately.
func TestPatienceWithGateways(t *testing.T) {
	refused := errors.New("connection refused")
	type step struct {
		a, b func(context.Context) (net.Conn, error)
		by   string // empty: by none
		in   time.Duration
	}
	for name, steps := range map[string][]step{
		"it is the only one":           {{after(15*time.Second, nil), nil, "a", 15 * time.Second}},
		"the other refuses":            {{swallows, after(0, refused), "", 2 * time.Second}},
		"the other is asked meanwhile": {{swallows, after(0, nil), "b", 250 * time.Millisecond}},
		"the first refuses":            {{after(0, refused), after(0, nil), "b", 0}},
		"the other is no quicker":      {{after(time.Second, nil), after(time.Second, nil), "a", time.Second}},
		"it was silent a moment ago": {
			{swallows, after(time.Second, nil), "b", 1250 * time.Millisecond},
			{swallows, after(0, refused), "", 500 * time.Millisecond},
		},
		"both were": {
			{swallows, swallows, "", 2250 * time.Millisecond},
			{swallows, swallows, "", 2250 * time.Millisecond},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &ways{names: []string{"a", "b"}, do: map[string]func(context.Context) (net.Conn, error){}}
				if steps[0].b == nil {
					w.names = w.names[:1]
				}
				s := &Service{Config: Config{Gateways: w.gateways, Now: time.Now}, memory: newGatewayMemory()}
				for n, step := range steps {
					w.set("a", step.a)
					w.set("b", step.b)
					began := time.Now()
					got, err := s.dialThrough(t.Context(), "control.retail", plainConn)
					took := time.Since(began)
					by := got.gateway
					if err != nil {
						by = ""
					} else {
						got.conn.Close()
					}
					if by != step.by || took != step.in {
						t.Errorf("step %d: %s, want %s", n, fmt.Sprintf("by %q in %s: %v", by, took, err),
							fmt.Sprintf("by %q in %s", step.by, step.in))
					}
				}
			})
		})
	}
}

// Of several failures that one is shown that came farthest.
func TestFarthestAttempt(t *testing.T) {
	silent, beyond := errSilent{errors.New("no handshake")}, errors.New("no such peer")
	a, b, c := &attempt{gateway: "a", err: silent}, &attempt{gateway: "b", at: "10.0.0.2:15444", err: silent},
		&attempt{gateway: "c", at: "10.0.0.3:15444", err: beyond}
	for want, all := range map[*attempt][][]*attempt{
		a: {{a}}, b: {{a, b}, {b, a}}, c: {{a, b, c}, {c, b, a}, {b, a, c}},
	} {
		for _, list := range all {
			if got := farthest(list); got != want {
				t.Errorf("of %d attempts, by gateway %s and not %s", len(list), got.gateway, want.gateway)
			}
		}
	}
}
