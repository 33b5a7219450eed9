package cli

import (
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
)

func TestEvents(t *testing.T) {
	f := &fake{events: adminapi.EventsResponse{Events: []adminapi.Event{
		{
			Seq: 7, Time: now.Add(-3 * time.Hour), Actor: "user root (uid 0)", From: "local socket",
			Action: "token create", Object: "node rack1", Outcome: "ok", Detail: "role node, identities default/*",
			First: now.Add(-3 * time.Hour), Count: 1,
		},
		{
			Time: now.Add(-time.Hour), Actor: "stranger", From: "192.0.2.66", Action: "node join", Outcome: "refused",
			Detail: "wrong\x1b[2Jsecret", First: now.Add(-2 * time.Hour), Count: 12,
		},
		{
			Seq: 8, Time: now.Add(-time.Minute), Actor: "administrator ada", From: "192.0.2.7", Action: "ca rotate",
			Object: "root", Outcome: "begun", First: now.Add(-time.Minute), Count: 1,
		},
	}}}
	socket := serve(t, f)
	got := run(t, "", "events", "--since", "1d", "--actor", "a", "--action", "t", "-n", "3", "--socket", socket)
	expect(t, got, 0)
	same(t, got.out, `WHEN                  WHO                FROM          DID           TO          OUTCOME               DETAIL
2026-11-22T09:00:00Z  user root (uid 0)  local socket  token create  node rack1  ok                    role node, identities default/*
2026-11-22T11:00:00Z  stranger           192.0.2.66    node join     -           refused ×12           wrong?[2Jsecret
2026-11-22T11:59:00Z  administrator ada  192.0.2.7     ca rotate     root        begun, end not known  -
`)
	if f.asked != (adminapi.EventsRequest{Since: now.Add(-24 * time.Hour), Actor: "a", Action: "t", Limit: 3}) {
		t.Errorf("asked %+v", f.asked)
	}
	same(t, run(t, "", "events", "-o", "wide", "--since", "2026-11-22T10:00:00Z", "--socket", socket).out, `WHEN                  WHO                FROM          DID           TO          OUTCOME               SEQ  FIRST                 DETAIL
2026-11-22T09:00:00Z  user root (uid 0)  local socket  token create  node rack1  ok                    7    -                     role node, identities default/*
2026-11-22T11:00:00Z  stranger           192.0.2.66    node join     -           refused ×12           -    2026-11-22T10:00:00Z  wrong?[2Jsecret
2026-11-22T11:59:00Z  administrator ada  192.0.2.7     ca rotate     root        begun, end not known  8    -                     -
`)
	if f.asked != (adminapi.EventsRequest{Since: now.Add(-2 * time.Hour), Limit: 100}) {
		t.Errorf("asked %+v", f.asked)
	}
	expect(t, run(t, "", "events", "--since", "yesterday", "--socket", socket), 64, "--since:", "yesterday")
	expect(t, run(t, "", "events", "-n", "0", "--socket", socket), 64, "say 1 to 10000")
	f.events.Events = nil
	same(t, run(t, "", "events", "--socket", socket).out, "Nothing is on record.\n")
	same(t, run(t, "", "events", "--actor", "ada", "--socket", socket).out,
		"Nothing like this is on record; isthmus events shows the latest.\n")
}

// At an abstract name anybody could listen.
func TestAbstractSocketIsNotAsked(t *testing.T) {
	expect(t, run(t, "", "status", "--socket", "@isthmus"), 64, "is an abstract name",
		"/run/isthmus/control/control.sock")
}
