package meshd

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/config"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/snapshot"
)

// anywhere has a control plane listen for gateways on every address of its host, as it does when the settings say nothing.
func anywhere(t *testing.T, p *plane) (port uint16) {
	t.Helper()
	_, port, err := peeringAddresses(config.Control{PeeringAddress: p.cfg.PeeringAddress})
	must(t, err)
	p.cfg.PeeringAddress = netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()
	return port
}

// Where the settings do not say how gateways reach the control plane, it is the address that each came by, as the kernel
// says; and it is known again after a restart.
func TestWhereGatewaysReachUsIsLearned(t *testing.T) {
	t.Parallel()
	p := newPlane(t, map[string]string{"mesh.yaml": meshYAML})
	port := anywhere(t, p)
	p.start()
	p.edge("edge")
	agents, err := netip.ParseAddrPort(p.cfg.AgentAddress)
	must(t, err)
	want := []netip.AddrPort{netip.AddrPortFrom(agents.Addr(), port)}
	reached := func() []netip.AddrPort {
		snap := p.d.store.Snapshot()
		if len(snap.Registry.Nodes) != 1 {
			return nil
		}
		return snap.ControlOf(snap.Registry.Nodes[0])
	}
	if got := reached(); !slices.Equal(got, want) {
		t.Fatalf("it is reached at %v instead of %v", got, want)
	}
	eventually(t, "the gateway is told", func() bool {
		gw := p.d.loop.published.Load().mesh.Proxies["edge"]
		return gw != nil && gw.Gateway != nil && slices.Equal(gw.Gateway.ControlAt, want)
	})
	must(t, p.stop())
	p.start()
	if got := reached(); !slices.Equal(got, want) {
		t.Errorf("after a restart it is reached at %v instead of %v", got, want)
	}
}

// Settings win, for gateways that reach the control plane through address translation.
func TestSettingsSayWhereGatewaysReachUs(t *testing.T) {
	for address, want := range map[string]string{
		":15013": "198.51.100.9:15013", "0.0.0.0:7": "198.51.100.9:7", "10.0.0.4:15013": "10.0.0.4:15013", "[::]:15013": "198.51.100.9:15013",
	} {
		said, _, err := peeringAddresses(config.Control{
			PeeringAddress: address, Names: config.Names{IPs: []netip.Addr{netip.MustParseAddr("198.51.100.9")}},
		})
		must(t, err)
		if len(said) != 1 || said[0].String() != want {
			t.Errorf("%s: %v instead of %s", address, said, want)
		}
	}
	said, port, err := peeringAddresses(config.Control{PeeringAddress: ":15013", AgentAddress: "10.0.0.4:15012"})
	if err != nil || len(said) != 0 || port != 15013 {
		t.Errorf("%v %d %v", said, port, err)
	}
}

// An address that another host could not use is none, and the one of before stays.
func TestAddressesThatAreNoUseAreNotLearned(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	for at, want := range map[string]string{
		"10.0.0.4": "10.0.0.4", "fd00::4": "fd00::4", "127.0.0.1": "127.0.0.1", "fe80::1%eth0": "invalid IP", "0.0.0.0": "invalid IP",
	} {
		ctx := door.With(context.Background(), door.Caller{At: netip.MustParseAddr(at)})
		if got := p.d.agents.reached(ctx, "edge").String(); got != want {
			t.Errorf("%s: learned %s instead of %s", at, got, want)
		}
	}
	node := snapshot.Node{Name: "edge", Role: snapshot.RoleGateway, Reached: netip.MustParseAddr("10.0.0.4")}
	_, _ = p.join(p.token("edge", snapshot.RoleGateway, "isthmus-system/gateway"))
	must(t, p.d.store.Register(t.Context(), 1, node, nil, func() error { return nil }))
	ctx := door.With(context.Background(), door.Caller{At: netip.MustParseAddr("fe80::1%eth0")})
	if got := p.d.agents.reached(ctx, "edge").String(); got != "10.0.0.4" {
		t.Errorf("the address of before is lost: %s", got)
	}
}

// An invitation that cannot work is refused, with what is in the way; check says it before.
func TestNoInvitationThatCannotWork(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	invite := func() string {
		t.Helper()
		_, err := adminapi.Call[adminapi.PeerInviteRequest, adminapi.PeerInviteResponse](soon(t), p.local(), "PeerInvite",
			&adminapi.PeerInviteRequest{Peer: "retail"})
		if err == nil {
			t.Fatal("an invitation was made")
		}
		return err.Error()
	}
	contains(t, "without a gateway", invite(), "this mesh has no gateway yet: start one with 'isthmus gateway'")
	p.edge("edge") // of few words: it has no Envoy
	contains(t, "a gateway that does not answer", invite(), "gateway edge does not answer the control plane at its inner address",
		"see that gateway.innerAddress is an address of that host")
	if invites := p.d.store.Snapshot().Invites; len(invites) != 0 {
		t.Errorf("open: %v", invites)
	}
	for _, c := range ask[adminapi.CheckResponse](t, p.local(), "Check", &adminapi.Empty{}).Checks {
		if c.Name == "gateway edge" {
			if c.State != "failed" || !strings.Contains(c.Detail, "does not answer") || c.Remedy == "" {
				t.Errorf("check: %+v", c)
			}
			return
		}
	}
	t.Error("check says nothing of the gateway")
}

func TestCheckRoad(t *testing.T) {
	n := snapshot.Node{Name: "edge", Gateway: &snapshot.GatewayInfo{InnerAddress: netip.MustParseAddr("10.1.0.2")}}
	snap := &snapshot.Snapshot{PeeringPort: 15013}
	if c := checkRoad(snap, n, errors.New("EOF")); c.State != "failed" ||
		!strings.HasPrefix(c.Detail, "does not know where to send what peers say") || !strings.Contains(c.Remedy, "names: {ips") {
		t.Errorf("%+v", c)
	}
	n.Reached = netip.MustParseAddr("10.1.0.9")
	if c := checkRoad(snap, n, errors.New("EOF")); c.State != "failed" ||
		c.Detail != "does not reach the control plane at 10.1.0.9:15013: EOF" || !strings.Contains(c.Remedy, "address translation") {
		t.Errorf("%+v", c)
	}
	if c := checkRoad(snap, n, errElsewhere{netip.MustParseAddr("192.0.2.9")}); c.State != "failed" ||
		c.Detail != "cannot listen for peers: its host has no address 192.0.2.9" || !strings.Contains(c.Remedy, "gateway.outerAddress") {
		t.Errorf("%+v", c)
	}
	if c := checkRoad(snap, n, nil); c.State != "ok" || c.Remedy != "" ||
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
		"answers":                     {[]look{{true, true, 0}}, false},
		"never answered":              {[]look{{false, true, 0}}, true},
		"failed once":                 {[]look{{true, true, 0}, {false, true, 2}}, false},
		"failed twice":                {[]look{{true, true, 0}, {false, true, 2}, {false, true, 4}}, true},
		"failed, answered, failed":    {[]look{{true, true, 0}, {false, true, 2}, {true, true, 4}, {false, true, 6}}, false},
		"back":                        {[]look{{true, true, 0}, {false, true, 2}, {false, true, 4}, {true, true, 6}}, false},
		"agent away for a moment":     {[]look{{true, true, 0}, {true, false, 2}, {true, false, 4}, {true, true, 6}, {true, false, 8}}, false},
		"agent away":                  {[]look{{true, true, 0}, {true, false, 2}, {true, false, 4}, {true, false, 7}}, true},
		"agent away from the start":   {[]look{{true, false, 0}, {true, false, 5}}, true},
		"agent away, then back again": {[]look{{true, false, 0}, {true, false, 9}, {true, true, 10}}, false},
	} {
		var r road
		at := noon
		for _, l := range tt.looks {
			at = noon.Add(l.after * time.Second)
			r = r.next(l.answers, l.agent, at)
		}
		if got := silent(map[string]road{"b": r, "a": {answered: true}}, at); (len(got) == 1 && got[0] == "b") != tt.want || len(got) > 1 {
			t.Errorf("%s: silent are %v", name, got)
		}
	}
}
