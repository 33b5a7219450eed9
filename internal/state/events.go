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
	Begun   = "begun"   // the outcome is not known yet
	OK      = "ok"      // done
	Failed  = "failed"  // allowed, but it failed
	Refused = "refused" // not allowed
)

// Stranger is the actor if nothing but the address is known.
const Stranger = "stranger"

// Event is an action or an attempt. A zero Time is set to the current time.
type Event struct {
	Seq     uint64 // 0 for refusals, which are folded
	Time    time.Time
	Actor   string // "user root (uid 0)", "administrator alice", "node n1", "peer cards", Stranger, "control plane"
	From    string // address, "socket", or empty for the control plane itself
	Action  string // "token create", "node join"
	Object  string // what the action concerned
	Outcome string // OK, Failed, Refused, Begun
	Detail  string // never a secret
	// First and Count describe folded refusals: the time of the first one, and their number. Time is the last one's.
	First time.Time
	Count int
}

// EventFilter selects events. Empty fields match all.
type EventFilter struct {
	Since  time.Time
	Actor  string // substring
	Action string // substring
	Limit  int    // number of the latest events, and of the latest refusals; 0: 100
}

// Bounded returns the event as it is stored: texts are truncated, made valid UTF-8 and redacted of tokens.
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
