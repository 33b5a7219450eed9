package meshd

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"google.golang.org/grpc/peer"
)

// Those without a certificate are bounded by where they come from: one address cannot keep the others out.
func TestStrangersOfOneAddressAreBounded(t *testing.T) {
	d := newDoor()
	one, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for range 256 {
		if !d.admit(one) {
			t.Fatal("refused early")
		}
	}
	if d.admit(one) {
		t.Error("one address fills the door")
	}
	if !d.admit(other) {
		t.Error("another address is refused")
	}
	d.leave(one)
	if !d.admit(one) {
		t.Error("a place that was left is not given again")
	}
	for range 256 {
		d.leave(one)
	}
	d.leave(other)
	if len(d.strangers) != 0 {
		t.Errorf("remembered after they left: %v", d.strangers)
	}
}

// A host has a whole network of IPv6 addresses, and counts as one.
func TestAddressOf(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.1:1234": "192.0.2.1", "[::ffff:192.0.2.1]:1234": "192.0.2.1",
		"[2001:db8:1:2:3:4:5:6]:1": "2001:db8:1:2::", "[2001:db8:1:2::9]:1": "2001:db8:1:2::", "[2001:db8:1:3::9]:1": "2001:db8:1:3::",
	} {
		ap := netip.MustParseAddrPort(from)
		ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: net.TCPAddrFromAddrPort(ap)})
		if got := addressOf(ctx); got != netip.MustParseAddr(want) {
			t.Errorf("%s counts as %s, want %s", from, got, want)
		}
	}
}
