package relational

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/state"
)

// refusalRetention is how long a refusal is kept after its last repetition. Events are kept for at least 400 days; a
// trigger on the table prevents the deletion of younger ones.
const refusalRetention = 30 * 24 * time.Hour

// Limits on refusals that are recorded separately. Further ones are only counted. Strangers, nodes, workloads, peers
// and administrators have separate limits.
const (
	maxRefusalsHere   = 32    // of one actor at one address
	maxRefusalsOfOne  = 128   // of one actor other than a stranger
	maxRefusalsOfKind = 2_000 // of all actors of one kind
	others            = "(others)"
)

// maxEvents limits the events of one answer.
const maxEvents = 10_000

// Record implements state.Store.
func (d *DB) Record(ctx context.Context, e state.Event) error {
	_, err := d.append(ctx, e, nil)
	return err
}

// BeginEvent implements state.Store.
func (d *DB) BeginEvent(ctx context.Context, e state.Event) (seq uint64, err error) {
	e.Outcome = state.Begun
	return d.append(ctx, e, nil)
}

// EndEvent implements state.Store.
func (d *DB) EndEvent(ctx context.Context, seq uint64, e state.Event) error {
	_, err := d.append(ctx, e, &seq)
	return err
}

func (d *DB) append(ctx context.Context, e state.Event, of *uint64) (seq uint64, err error) {
	e = e.Bounded()
	err = d.inTx(ctx, "record event", func(ctx context.Context, t *tx) error {
		if e.Outcome == state.Refused && of == nil {
			return t.fold(ctx, e)
		}
		args := []any{timeValue(e.Time), e.Actor, e.From, e.Action, e.Object, e.Outcome, e.Detail, of}
		return t.scan(ctx, "add-event", []any{&seq}, args...)
	})
	return seq, err
}

// fold counts a refusal.
func (t *tx) fold(ctx context.Context, e state.Event) error {
	n, err := t.exec(ctx, "fold-refusal", timeValue(e.Time), e.Count, e.Actor, e.From, e.Action, e.Object, e.Detail)
	if err != nil || n > 0 {
		return err
	}
	kind, _, named := strings.Cut(e.Actor, " ")
	var here, own, all int
	if err := t.scan(ctx, "refusals-of", []any{&here, &own, &all}, e.Actor, e.From, kind); err != nil {
		return err
	}
	switch {
	case all >= maxRefusalsOfKind:
		e.From, e.Object, e.Detail = others, others, ""
		if named {
			e.Actor = kind + " " + others
		}
	case named && own >= maxRefusalsOfOne:
		e.From, e.Object, e.Detail = others, others, ""
	case here >= maxRefusalsHere:
		e.Object, e.Detail = others, ""
	}
	_, err = t.exec(ctx, "add-refusal", timeValue(e.Time), e.Count, e.Actor, e.From, e.Action, e.Object, e.Detail,
		timeValue(e.First))
	return err
}

// Events implements state.Store.
func (d *DB) Events(ctx context.Context, f state.EventFilter) ([]state.Event, error) {
	since := int64(-1 << 63)
	if !f.Since.IsZero() {
		since = f.Since.UnixMicro()
	}
	limit := min(cmp.Or(f.Limit, 100), maxEvents)
	var all []state.Event
	for _, name := range []string{"events", "refusals"} {
		got, err := list(ctx, d, name, scanEvent, since, f.Actor, f.Action, limit)
		if err != nil {
			return nil, err
		}
		all = append(all, got...)
	}
	slices.SortFunc(all, func(a, b state.Event) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Actor, b.Actor),
			cmp.Compare(a.From, b.From),
			cmp.Compare(a.Action, b.Action), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Detail, b.Detail))
	})
	return all, nil
}

func scanEvent(s scanner) (state.Event, error) {
	var e state.Event
	err := s.Scan(&e.Seq, timeOf{&e.Time}, &e.Actor, &e.From, &e.Action, &e.Object, &e.Outcome, &e.Detail,
		timeOf{&e.First}, &e.Count)
	return e, err
}
