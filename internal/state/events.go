package state

import (
	"cmp"
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

// Bounded is the event as it is kept: no text longer than it may be, none that is not UTF-8, no token.
func (e Event) Bounded() Event {
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
