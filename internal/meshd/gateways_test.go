package meshd

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/config"
)

// anywhere has a control plane listen for gateways on every address of its host, as it does when the settings say
// nothing.
func anywhere(t *testing.T, p *plane) (port uint16) {
	t.Helper()
	_, port, err := peeringAddresses(config.Control{PeeringAddress: p.cfg.PeeringAddress})
	must(t, err)
	p.cfg.PeeringAddress = netip.AddrPortFrom(netip.IPv4Unspecified(), port).String()
	return port
}

// Where the settings do not say how gateways reach the control plane, it is the address that each came by, as the
// kernel says; and it is known again after a restart.
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
		gw := p.d.loop.Published().Mesh.Proxies["edge"]
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
		":15013": "198.51.100.9:15013", "0.0.0.0:7": "198.51.100.9:7", "10.0.0.4:15013": "10.0.0.4:15013",
		"[::]:15013": "198.51.100.9:15013",
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

// An invitation that cannot work is refused, with what is in the way; check says it before.
func TestNoInvitationThatCannotWork(t *testing.T) {
	t.Parallel()
	p := startPlane(t, map[string]string{"mesh.yaml": meshYAML})
	invite := func() string {
		t.Helper()
		_, err := adminapi.Call[adminapi.PeerInviteRequest, adminapi.PeerInviteResponse](soon(t), p.local(),
			"PeerInvite",
			&adminapi.PeerInviteRequest{Peer: "retail"})
		if err == nil {
			t.Fatal("an invitation was made")
		}
		return err.Error()
	}
	contains(t, "without a gateway", invite(), "this mesh has no gateway yet: start one with 'isthmus gateway'")
	p.edge("edge") // of few words: it has no Envoy
	contains(t, "a gateway that does not answer", invite(),
		"gateway edge does not answer the control plane at its inner address",
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
