package node

import (
	"net/netip"
	"slices"
	"testing"
)

// TestElsewhere: which addresses nobody could listen at on this host. 192.0.2.0/24 is nobody's (RFC 5737).
func TestElsewhere(t *testing.T) {
	addr := netip.MustParseAddr
	got := notOnThisHost([]netip.Addr{addr("127.0.0.1"), addr("192.0.2.200"), addr("127.9.9.9")})
	if !slices.Equal(got, []netip.Addr{addr("192.0.2.200")}) {
		t.Errorf("got %v", got)
	}
}
