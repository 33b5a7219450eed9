package capture

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

func TestConnectionsAsKeys(t *testing.T) {
	for _, x := range []struct{ local, remote, key string }{
		{"10.0.0.2:51000", "192.0.2.7:80", "0a000002c7380000c000020700500000"},
		{
			"[fd00::2]:51000", "[2001:db8::7]:443",
			"fd000000000000000000000000000002c738000020010db800000000000000000000000701bb0000",
		},
	} {
		c := Connection{Local: netip.MustParseAddrPort(x.local), Remote: netip.MustParseAddrPort(x.remote)}
		sets := 0
		for _, s := range openSets {
			if !s.of(c) {
				continue
			}
			sets++
			if got := hex.EncodeToString(s.key(c)); got != x.key {
				t.Errorf("%s is %s, want %s", c, got, x.key)
			}
			if back, ok := s.connection(s.key(c)); !ok || back != c {
				t.Errorf("%s comes back as %s, %v", c, back, ok)
			}
			if _, ok := s.connection(s.key(c)[1:]); ok {
				t.Errorf("half a key of %s is read", c)
			}
		}
		if sets != 1 {
			t.Errorf("%s belongs in %d sets", c, sets)
		}
	}
}

// Where nothing was open there is no exception in the rules at all.
func TestNoExceptionWithoutOpenConnections(t *testing.T) {
	few, more := 0, 0
	for _, c := range chains(Rules{LeaveOpen: 1}) {
		few += len(c.rules)
	}
	for _, c := range chains(Rules{LeaveOpen: 1, open: true}) {
		more += len(c.rules)
	}
	if more-few != 8 { // each way, of each IP version, untracked and let through
		t.Errorf("%d rules without open connections, %d with", few, more)
	}
}
