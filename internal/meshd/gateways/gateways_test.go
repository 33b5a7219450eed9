package gateways

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/snapshot"
)

func TestCheckRoad(t *testing.T) {
	n := snapshot.Node{Name: "edge", Gateway: &snapshot.GatewayInfo{InnerAddress: netip.MustParseAddr("10.1.0.2")}}
	snap := &snapshot.Snapshot{PeeringPort: 15013}
	if c := CheckRoad(snap, n, errors.New("EOF")); c.State != "failed" ||
		!strings.HasPrefix(c.Detail, "does not know where to send what peers say") ||
		!strings.Contains(c.Remedy, "names: {ips") {
		t.Errorf("%+v", c)
	}
	n.Reached = netip.MustParseAddr("10.1.0.9")
	if c := CheckRoad(snap, n, errors.New("EOF")); c.State != "failed" ||
		c.Detail != "does not reach the control plane at 10.1.0.9:15013: EOF" ||
		!strings.Contains(c.Remedy, "address translation") {
		t.Errorf("%+v", c)
	}
	if c := CheckRoad(snap, n, errElsewhere{netip.MustParseAddr("192.0.2.9")}); c.State != "failed" ||
		c.Detail != "cannot listen for peers: its host has no address 192.0.2.9" ||
		!strings.Contains(c.Remedy, "gateway.outerAddress") {
		t.Errorf("%+v", c)
	}
	if c := CheckRoad(snap, n, nil); c.State != "ok" || c.Remedy != "" ||
		c.Detail != "answers at 10.1.0.2, and reaches the control plane at 10.1.0.9:15013" {
		t.Errorf("%+v", c)
	}
}

// When a gateway counts as silent.
func TestSilentGateways(t *testing.T) {
	noon := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	type look struct {
		answers, agent bool
		after          time.Duration
	}
	for name, tt := range map[string]struct {
		looks []look
		want  bool
	}{
		"answers":        {[]look{{true, true, 0}}, false},
		"never answered": {[]look{{false, true, 0}}, true},
		"failed once":    {[]look{{true, true, 0}, {false, true, 2}}, false},
		"failed twice":   {[]look{{true, true, 0}, {false, true, 2}, {false, true, 4}}, true},
		"failed, answered, failed": {
			[]look{{true, true, 0}, {false, true, 2}, {true, true, 4}, {false, true, 6}},
			false,
		},
		"back": {
			[]look{{true, true, 0}, {false, true, 2}, {false, true, 4}, {true, true, 6}},
			false,
		},
		"agent away for a moment": {[]look{
			{true, true, 0},
			{true, false, 2},
			{true, false, 4},
			{true, true, 6},
			{true, false, 8},
		}, false},
		"agent away": {
			[]look{{true, true, 0}, {true, false, 2}, {true, false, 4}, {true, false, 7}},
			true,
		},
		"agent away from the start":   {[]look{{true, false, 0}, {true, false, 5}}, true},
		"agent away, then back again": {[]look{{true, false, 0}, {true, false, 9}, {true, true, 10}}, false},
	} {
		var r road
		at := noon
		for _, l := range tt.looks {
			at = noon.Add(l.after * time.Second)
			r = r.next(l.answers, l.agent, at)
		}
		if got := silent(map[string]road{"b": r, "a": {answered: true}}, at); (len(got) == 1 &&
			got[0] == "b") != tt.want || len(got) > 1 {
			t.Errorf("%s: silent are %v", name, got)
		}
	}
}
