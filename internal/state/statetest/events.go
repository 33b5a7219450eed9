package statetest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// eventBy returns an event by alice as written and as read.
func eventBy(seq uint64, at time.Time, action, object, outcome string) state.Event {
	return state.Event{
		Seq: seq, Time: at, Actor: "administrator alice", From: "192.0.2.7", Action: action, Object: object,
		Outcome: outcome, First: at, Count: 1,
	}
}

func events(t *testing.T, s state.Store) {
	ctx := t.Context()
	all := []state.Event{
		eventBy(1, epoch, "token create", "node n1", state.OK),
		eventBy(2, after(time.Minute), "peer suspend", "cards", state.Failed),
		eventBy(3, after(2*time.Minute), "token create", "node n2", state.OK),
	}
	all[1].Actor, all[1].Detail = "user root (uid 0)", "the disk is full"
	for _, e := range all {
		e.Seq = 0
		ok(t, s.Record(ctx, e))
	}
	for _, test := range []struct {
		filter state.EventFilter
		want   []state.Event
	}{
		{state.EventFilter{}, all},
		{state.EventFilter{Limit: 2}, all[1:]},
		{state.EventFilter{Since: after(time.Minute)}, all[1:]},
		{state.EventFilter{Actor: "alice"}, []state.Event{all[0], all[2]}},
		{state.EventFilter{Action: "suspend"}, all[1:2]},
		{state.EventFilter{Action: "suspend", Actor: "alice"}, nil},
		{state.EventFilter{Actor: "%"}, nil},
	} {
		got, err := s.Events(ctx, test.filter)
		ok(t, err)
		same(t, got, test.want)
	}
}

// eventWithEnd tests that an event has the outcome begun until its end is recorded, which happens once.
func eventWithEnd(t *testing.T, s state.Store) {
	ctx := t.Context()
	e := eventBy(0, epoch, "ca rotate", "root", "")
	seq, err := s.BeginEvent(ctx, e)
	ok(t, err)
	got, err := s.Events(ctx, state.EventFilter{})
	ok(t, err)
	same(t, got, []state.Event{eventBy(1, epoch, "ca rotate", "root", state.Begun)})
	e.Outcome = state.Refused // refused after it was begun: it stays among the events
	ok(t, s.EndEvent(ctx, seq, e))
	got, err = s.Events(ctx, state.EventFilter{})
	ok(t, err)
	same(t, got, []state.Event{eventBy(2, epoch, "ca rotate", "root", state.Refused)})
	if err := s.EndEvent(ctx, seq, e); err == nil {
		t.Error("it ended twice")
	}
}

// eventsAreKept tests that pruning removes only events beyond their own retention, whatever time is given.
func eventsAreKept(t *testing.T, s state.Store) {
	ctx := t.Context()
	for i, days := range []int{0, 10, 399, 405} {
		ok(t,
			s.Record(ctx, eventBy(0, after(time.Duration(days)*24*time.Hour), "token create", fmt.Sprint("node n", i),
				state.OK)))
	}
	ok(t, s.Record(ctx, state.Event{Time: epoch, Actor: "stranger", Action: "node join", Outcome: state.Refused}))
	ok(t, s.Prune(ctx, after(10_000*24*time.Hour)))
	got, err := s.Events(ctx, state.EventFilter{})
	ok(t, err)
	var objects []string
	for _, e := range got {
		objects = append(objects, e.Object)
	}
	same(t, objects, []string{"node n0", "node n1", "node n2", "node n3"}) // few: age does not matter
	for range 1_000 {
		ok(t, s.Record(ctx, eventBy(0, after(405*24*time.Hour), "token create", "node n4", state.OK)))
	}
	ok(t, s.Prune(ctx, after(10_000*24*time.Hour)))
	got, err = s.Events(ctx, state.EventFilter{Limit: 10_000})
	ok(t, err)
	same(t, []string{got[0].Object, got[1].Object}, []string{"node n1", "node n2"})
	same(t, len(got), 1_003)
}

// eventsOutliveAClock tests that a clock set years ahead and back again causes no loss of events.
func eventsOutliveAClock(t *testing.T, s state.Store) {
	ctx := t.Context()
	for i := range 10 {
		ok(t, s.Record(ctx, eventBy(0, after(time.Duration(i)*time.Hour), "token create", fmt.Sprint("node n", i),
			state.OK)))
	}
	ok(t, s.Record(ctx, eventBy(0, after(3*365*24*time.Hour), "token create", "node late", state.OK)))
	ok(t, s.Prune(ctx, after(3*365*24*time.Hour)))
	got, err := s.Events(ctx, state.EventFilter{})
	ok(t, err)
	same(t, len(got), 11)
	// Events before the last young one stay with it: a gap would look like tampering.
	for i := range 1_001 {
		ok(t, s.Record(ctx, eventBy(0, after(time.Duration(i)*time.Second), "token create", "node m", state.OK)))
	}
	ok(t, s.Prune(ctx, after(3*365*24*time.Hour)))
	got, err = s.Events(ctx, state.EventFilter{Limit: 10_000})
	ok(t, err)
	slices.SortFunc(got, func(a, b state.Event) int { return cmp.Compare(a.Seq, b.Seq) })
	same(t, got[0].Object, "node late")
	same(t, len(got), 1_002)
}

// eventsAreBounded tests that rows have a maximum length, and that invalid text is converted.
func eventsAreBounded(t *testing.T, s state.Store) {
	ctx := t.Context()
	long := strings.Repeat("ä", 5000)
	ok(t,
		s.Record(ctx, state.Event{
			Time: epoch, Actor: long, From: long, Action: long, Object: "a\x00b\xff", Outcome: state.OK, Detail: long,
		}))
	got, err := s.Events(ctx, state.EventFilter{})
	ok(t, err)
	same(t, got, []state.Event{{
		Seq: 1, Time: epoch, First: epoch, Count: 1, Outcome: "ok", Object: "a?b?",
		Actor: strings.Repeat("ä", 126) + "…",
		From:  strings.Repeat("ä", 62) + "…", Action: strings.Repeat("ä", 30) + "…",
		Detail: strings.Repeat("ä", 510) + "…",
	}})
}

// refusalsLeaveRoom tests that refusals from ever new addresses or names leave room for those of other actors, which
// keep their details.
func refusalsLeaveRoom(t *testing.T, s state.Store) {
	ctx := t.Context()
	floods := map[string]func(i int) (actor, from string){
		"one node, many addresses": func(i int) (string, string) {
			return "node stolen",
				fmt.Sprintf("2001:db8::%x", i)
		},
		"many workloads of one": func(i int) (string, string) {
			return fmt.Sprint("workload default/w", i),
				"192.0.2.1"
		},
		"strangers from everywhere": func(i int) (string, string) {
			return state.Stranger,
				fmt.Sprintf("2001:db8:%x::", i)
		},
	}
	for _, flood := range floods {
		for i := range 2_600 {
			actor, from := flood(i)
			e := state.Event{
				Time: epoch, Actor: actor, From: from, Action: "sign", Object: "o", Outcome: state.Refused,
				Detail: "d",
			}
			ok(t, s.Record(ctx, e))
		}
	}
	late := state.Event{
		Time: after(time.Second), Actor: "peer retail", From: "192.0.2.9", Action: "peer catalogue",
		Object:  "peer retail",
		Outcome: state.Refused, Detail: "why",
	}
	node := late
	node.Actor, node.Action = "node n1", "node register"
	ok(t, s.Record(ctx, late))
	ok(t, s.Record(ctx, node))
	got, err := s.Events(ctx, state.EventFilter{Limit: 10_000})
	ok(t, err)
	times, rows := map[string]int{}, map[string]int{}
	for _, e := range got {
		class, _, _ := strings.Cut(e.Actor, " ")
		times[class] += e.Count
		rows[class]++
	}
	same(t, times, map[string]int{"node": 2601, "workload": 2600, "stranger": 2600, "peer": 1})
	if rows["node"] > 200 || rows["workload"] > 2_001 || rows["stranger"] > 2_001 {
		t.Errorf("rows: %v", rows)
	}
	late.First, late.Count, node.First, node.Count = late.Time, 1, node.Time, 1
	same(t, got[len(got)-2:], []state.Event{node, late})
}

// refusalsAreFolded tests that endless refusals, even from everywhere, neither fill the database nor hide anything.
func refusalsAreFolded(t *testing.T, s state.Store) {
	ctx := t.Context()
	ok(t, s.Record(ctx, eventBy(0, epoch, "token create", "node n1", state.OK)))
	for i := range 50 {
		e := state.Event{
			Time: after(time.Duration(i) * time.Second), Actor: "node n1", From: "192.0.2.1", Action: "sign",
			Object:  fmt.Sprint("ns/", i),
			Outcome: state.Refused, Detail: "not granted",
		}
		ok(t, s.Record(ctx, e))
		e.Actor, e.From, e.Object = state.Stranger, "192.0.2.2", ""
		e.Count = 3
		ok(t, s.Record(ctx, e))
	}
	got, err := s.Events(ctx, state.EventFilter{Limit: 1000})
	ok(t, err)
	count := map[string]int{}
	for _, e := range got {
		count[e.Actor+" "+e.Object] += e.Count
	}
	if len(got) != 1+33+1 || count["administrator alice node n1"] != 1 || count["stranger "] != 150 ||
		count["node n1 (others)"] != 18 || count["node n1 ns/31"] != 1 {
		t.Errorf("%d rows: %v", len(got), count)
	}
	// However many refusals there are, events are returned beside them.
	got, err = s.Events(ctx, state.EventFilter{Limit: 1})
	ok(t, err)
	if len(got) != 2 || got[0].Actor != "administrator alice" {
		t.Errorf("got %+v", got)
	}
}
