package reserved_test

import (
	"net/netip"
	"testing"

	"isthmus.dev/isthmus/internal/reserved"
)

func TestAddress(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1":              "a loopback address",
		"127.255.255.254":        "a loopback address",
		"::1":                    "a loopback address",
		"0.0.0.0":                "the unspecified address",
		"0.0.0.1":                "the unspecified address",
		"::":                     "the unspecified address",
		"169.254.169.254":        "a link-local address",
		"fe80::1":                "a link-local address",
		"fe80::1%eth0":           "a link-local address",
		"febf::1":                "a link-local address",
		"224.0.0.1":              "a multicast address",
		"239.255.255.255":        "a multicast address",
		"ff02::1":                "a multicast address",
		"255.255.255.255":        "the broadcast address",
		"240.240.0.1":            "one of the mesh's virtual addresses",
		"240.240.255.255":        "one of the mesh's virtual addresses",
		"100::f0f0:1":            "one of the mesh's virtual addresses",
		"::7f00:1":               "an IPv4 address in a form that nobody uses any more",
		"::a00:1":                "an IPv4 address in a form that nobody uses any more",
		"::ffff:127.0.0.1":       "a loopback address in an IPv6 form",
		"::ffff:0:127.0.0.1":     "a loopback address in an IPv6 form",
		"64:ff9b::127.0.0.1":     "a loopback address in an IPv6 form",
		"64:ff9b:1::127.0.0.1":   "a loopback address in an IPv6 form",
		"64:ff9b::240.240.0.1":   "one of the mesh's virtual addresses in an IPv6 form",
		"2002:7f00:1::1":         "a loopback address in an IPv6 form",
		"2002:f0f0:1::":          "one of the mesh's virtual addresses in an IPv6 form",
		"::ffff:169.254.169.254": "a link-local address in an IPv6 form",
		"10.0.0.1":               "",
		"192.0.2.1":              "",
		"240.239.255.255":        "",
		"240.241.0.0":            "",
		"223.255.255.255":        "",
		"::ffff:10.0.0.1":        "",
		"64:ff9b::192.0.2.1":     "",
		"2002:c000:201::1":       "",
		"2001:db8::1":            "",
		"fd00::1":                "",
		"100:0:0:1::1":           "",
	} {
		if got := reserved.Address(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
	if got := reserved.Address(netip.Addr{}); got != "no address" {
		t.Errorf("the zero address is %q", got)
	}
}

func TestRange(t *testing.T) {
	for text, taken := range map[string]bool{
		"240.240.0.0/16":       true,
		"240.240.7.0/24":       true, // inside ours
		"240.0.0.0/4":          true, // ours inside
		"0.0.0.0/0":            true,
		"::/0":                 true,
		"100::/64":             true,
		"100::/100":            true,
		"126.0.0.0/7":          true,
		"::ffff:127.0.0.0/104": true,
		"64:ff9b::/96":         true,
		"192.0.2.0/24":         false,
		"10.0.0.0/8":           false,
		"240.241.0.0/16":       false,
		"2001:db8::/32":        false,
		"fc00::/7":             false,
	} {
		if got := reserved.Range(netip.MustParsePrefix(text)); (got != "") != taken {
			t.Errorf("%s: %q, want taken %v", text, got, taken)
		}
	}
}

func TestPort(t *testing.T) {
	for _, n := range []uint16{15001, 15006, 15012, 15013, 15020, 15021, 15053, 15443, 15444} {
		if reserved.Port(n) == "" {
			t.Errorf("port %d may be named", n)
		}
		if got := reserved.GatewayPort(n); (got == "") != (n == 15443) {
			t.Errorf("a gateway's port %d: %q", n, got)
		}
	}
	for _, n := range []uint16{1, 80, 443, 8080, 15000, 15002, 65535} {
		if got := reserved.Port(n); got != "" {
			t.Errorf("port %d: %s", n, got)
		}
	}
}
