package gateways

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/snapshot"
)

func TestCheckRoad(t *testing.T) {
	n := snapshot.Node{Name: "edge", Gateway: &snapshot.GatewayInfo{InnerAddress: netip.MustParseAddr("10.1.0.2")}}
	snap := &snapshot.Snapshot{PeeringPort: 15013}
	if c := PathCheck(snap, n, errors.New("EOF")); c.State != "failed" ||
		!strings.HasPrefix(c.Detail, "does not know where to send peers' control traffic") ||
		!strings.Contains(c.Remedy, "names: {ips") {
		t.Errorf("%+v", c)
	}
	n.Reached = netip.MustParseAddr("10.1.0.9")
	if c := PathCheck(snap, n, errors.New("EOF")); c.State != "failed" ||
		c.Detail != "does not reach the control plane at 10.1.0.9:15013: EOF" ||
		!strings.Contains(c.Remedy, "address translation") {
		t.Errorf("%+v", c)
	}
	if c := PathCheck(snap, n, errElsewhere{netip.MustParseAddr("192.0.2.9")}); c.State != "failed" ||
		c.Detail != "cannot listen for peers: its host has no address 192.0.2.9" ||
		!strings.Contains(c.Remedy, "gateway.outerAddress") {
		t.Errorf("%+v", c)
	}
	if c := PathCheck(snap, n, nil); c.State != "ok" || c.Remedy != "" ||
		c.Detail != "answers at 10.1.0.2, and reaches the control plane at 10.1.0.9:15013" {
		t.Errorf("%+v", c)
	}
}

// watch is of two gateways, of which home says whether they lead here and reports what their agents say.
func watch(home func(name string) error, reports map[string]agentapi.Report) *Watch {
	snap := &snapshot.Snapshot{Registry: &snapshot.Registry{}, PeeringPort: 15013}
	for i, name := range []string{"east", "west"} {
		snap.Registry.Nodes = append(snap.Registry.Nodes, snapshot.Node{
			Name: name, Role: snapshot.RoleGateway, Reached: netip.MustParseAddr("10.1.0.9"),
			Gateway: &snapshot.GatewayInfo{InnerAddress: netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 2)})},
		})
	}
	return New(Config{
		Dialer:  Dialer{Snapshot: func() *snapshot.Snapshot { return snap }},
		Home:    func(_ context.Context, g federation.Gateway) error { return home(g.Name) },
		Reports: func() map[string]agentapi.Report { return reports },
	})
}

// A gateway that leads here serves no peer if its host lacks the address that peers are told.
func TestRoadOfAGatewayElsewhere(t *testing.T) {
	w := watch(func(string) error { return nil },
		map[string]agentapi.Report{"west": {Elsewhere: []netip.Addr{netip.MustParseAddr("192.0.2.9")}}})
	roads := w.CheckPaths(t.Context())
	if err, known := roads["east"]; !known || err != nil {
		t.Errorf("east: %v, known: %t", err, known)
	}
	if err := roads["west"]; err == nil || err.Error() != "its host has no address 192.0.2.9" {
		t.Errorf("west: %v", err)
	}
}

// A peering can come about as soon as one gateway leads here, however many do not.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		w := watch(func(name string) error {
			if name == "west" && time.Since(begun) > time.Second {
				return nil
			}
			return errors.New("EOF")
		}, nil)
		err := w.Ready(t.Context())
		if took := time.Since(begun); err != nil || took > 1500*time.Millisecond {
			t.Errorf("after %s: %v", took, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		err := watch(func(string) error { return errors.New("EOF") }, nil).Ready(t.Context())
		if took := time.Since(begun); err == nil || took != 5*time.Second ||
			!strings.HasPrefix(err.Error(), "no peer's control plane could reach this mesh's: gateway east ") ||
			!strings.Contains(err.Error(), "; gateway west does not reach the control plane at 10.1.0.9:15013: EOF") {
			t.Errorf("after %s: %v", took, err)
		}
	})
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
		var r gatewayState
		at := noon
		for _, l := range tt.looks {
			at = noon.Add(l.after * time.Second)
			r = r.next(l.answers, l.agent, at)
		}
		if got := silent(map[string]gatewayState{"b": r, "a": {answered: true}}, at); (len(got) == 1 &&
			got[0] == "b") != tt.want || len(got) > 1 {
			t.Errorf("%s: silent are %v", name, got)
		}
	}
}
