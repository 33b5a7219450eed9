package state

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"isthmus.dev/isthmus/internal/finding"
)

// Outcomes of an Event.
const (
	Begun   = "begun"   // and nothing is known of its end
	OK      = "ok"      // done
	Failed  = "failed"  // was allowed, and could not be done
	Refused = "refused" // was not allowed
)

// Stranger is the actor of whom nothing is known but the address.
const Stranger = "stranger"

// refusalRetention is how long a refusal is kept after its last repetition. An event is kept for at least 400 days: the
// table itself refuses to lose a younger one.
const refusalRetention = 30 * 24 * time.Hour

// Bounds on refusals that are kept apart from one another. What exceeds them is counted, without the details.
// Strangers, nodes, workloads, peers and administrators each have room of their own.
const (
	maxRefusalsHere   = 32    // of one actor at one address
	maxRefusalsOfOne  = 128   // of one actor, unless it is a stranger
	maxRefusalsOfKind = 2_000 // of all actors of one kind
	others            = "(others)"
)

// maxEvents is how many events one question returns at most.
const maxEvents = 10_000

// Event is something that was done or tried. A zero Time is filled in.
type Event struct {
	Seq     uint64 // 0 for refusals, which are folded
	Time    time.Time
	Actor   string // "user root (uid 0)", "administrator alice", "node n1", "peer cards", Stranger, "control plane"
	From    string // address, "socket", or empty for the control plane itself
	Action  string // "token create", "node join"
	Object  string // what it was done to
	Outcome string // OK, Failed, Refused, Begun
	Detail  string // never a secret
	// First and Count are of a folded refusal: when the first of them came, and how many there were. Time is the last
	// one's.
	First time.Time
	Count int
}

// EventFilter selects events; empty fields select all.
type EventFilter struct {
	Since  time.Time
	Actor  string // part of it
	Action string // part of it
	Limit  int    // the last so many events, and as many refusals; 0: 100
}

// Record writes an event and returns when it is durable. Refusals are folded: one that equals an earlier one in
// everything but its time is counted with it.
func (d *DB) Record(ctx context.Context, e Event) error {
	_, err := d.append(ctx, e, nil)
	return err
}

// BeginEvent writes that something is about to be done. EndEvent writes how it went.
func (d *DB) BeginEvent(ctx context.Context, e Event) (seq uint64, err error) {
	e.Outcome = Begun
	return d.append(ctx, e, nil)
}

// EndEvent writes the outcome of what BeginEvent returned seq for. It is an event of its own: nothing is changed.
func (d *DB) EndEvent(ctx context.Context, seq uint64, e Event) error {
	_, err := d.append(ctx, e, &seq)
	return err
}

func (d *DB) append(ctx context.Context, e Event, of *uint64) (seq uint64, err error) {
	e = e.bounded()
	err = d.inTx(ctx, "record event", func(ctx context.Context, t tx) error {
		if e.Outcome == Refused && of == nil {
			return t.fold(ctx, e)
		}
		args := []any{stamp(e.Time), e.Actor, e.From, e.Action, e.Object, e.Outcome, e.Detail, of}
		return t.scan(ctx, "add-event", []any{&seq}, args...)
	})
	return seq, err
}

// fold counts a refusal.
func (t tx) fold(ctx context.Context, e Event) error {
	n, err := t.exec(ctx, "fold-refusal", stamp(e.Time), e.Count, e.Actor, e.From, e.Action, e.Object, e.Detail)
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
	_, err = t.exec(ctx, "add-refusal", stamp(e.Time), e.Count, e.Actor, e.From, e.Action, e.Object, e.Detail,
		stamp(e.First))
	return err
}

// scan runs a statement of one row inside the transaction.
func (t tx) scan(ctx context.Context, name string, into []any, args ...any) error {
	return t.d.fail(name, t.tx.StmtContext(ctx, t.d.stmts[name]).QueryRowContext(ctx, args...).Scan(into...))
}

// Events reads the last events, and the last refusals beside them, oldest first. Neither can crowd the other out.
func (d *DB) Events(ctx context.Context, f EventFilter) ([]Event, error) {
	since := int64(-1 << 63)
	if !f.Since.IsZero() {
		since = f.Since.UnixMicro()
	}
	limit := min(cmp.Or(f.Limit, 100), maxEvents)
	var all []Event
	for _, name := range []string{"events", "refusals"} {
		got, err := list(ctx, d, name, scanEvent, since, f.Actor, f.Action, limit)
		if err != nil {
			return nil, err
		}
		all = append(all, got...)
	}
	slices.SortFunc(all, func(a, b Event) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Seq, b.Seq), cmp.Compare(a.Actor, b.Actor), cmp.Compare(a.From, b.From),
			cmp.Compare(a.Action, b.Action), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Detail, b.Detail))
	})
	return all, nil
}

func scanEvent(s scanner) (Event, error) {
	var e Event
	err := s.Scan(&e.Seq, timeOf{&e.Time}, &e.Actor, &e.From, &e.Action, &e.Object, &e.Outcome, &e.Detail,
		timeOf{&e.First}, &e.Count)
	return e, err
}

// bounded is the event as the table takes it.
func (e Event) bounded() Event {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	if e.First.IsZero() {
		e.First = e.Time
	}
	e.Count = max(e.Count, 1)
	e.Actor, e.Action = bound(cmp.Or(e.Actor, Stranger), 256), bound(cmp.Or(e.Action, "unknown"), 64)
	e.From, e.Object, e.Detail = bound(e.From, 128), bound(e.Object, 512), bound(e.Detail, 1024)
	for _, text := range []*string{&e.Actor, &e.From, &e.Object, &e.Detail} {
		*text = finding.WithoutTokens(*text)
	}
	return e
}

// bound makes s valid UTF-8 without NUL, of at most n bytes.
func bound(s string, n int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
	if len(s) <= n {
		return s
	}
	cut := n - len("…")
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// chained is a SQL condition on what Events were written down: each is linked to the one before, none is missing.
const chained = `SELECT
  (SELECT count(*) FROM (
    SELECT seq, lag(seq) OVER w AS before, link, isthmus_link(lag(link) OVER w, time, actor, origin, action, object, outcome, detail, of) AS want
    FROM events WINDOW w AS (ORDER BY seq))
  WHERE (before IS NOT NULL OR seq = 1) AND (link IS NOT want OR before <> seq - 1))
  + (SELECT count(*) FROM sqlite_sequence WHERE name = 'events' AND seq IS NOT (SELECT max(seq) FROM events))`

// examineEvents looks for events that were taken out or changed.
func examineEvents(ctx context.Context, p *sql.DB, path string) error {
	tables, err := strs(ctx, p, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = 'events'")
	if err != nil || len(tables) == 0 {
		return err
	}
	var bad int
	if err := p.QueryRowContext(ctx, chained).Scan(&bad); err != nil {
		return err
	}
	if bad > 0 {
		return damaged(path, fmt.Sprintf("events are missing or not as they were written, at %d places", bad))
	}
	return nil
}
