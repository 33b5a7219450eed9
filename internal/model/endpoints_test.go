package model

import (
	"net/netip"
	"slices"
	"testing"
)

func TestPlaces(t *testing.T) {
	a, b, six, seven := netip.MustParseAddr(
		"10.0.0.1",
	), netip.MustParseAddr(
		"10.0.0.2",
	), netip.MustParseAddr(
		"fd00::6",
	), netip.MustParseAddr(
		"fd00::7",
	)
	for _, c := range []struct {
		addrs []netip.Addr
		want  []Endpoint
	}{
		{nil, nil},
		{[]netip.Addr{a}, []Endpoint{{Addr: a}}},
		{[]netip.Addr{a, six}, []Endpoint{{Addr: a, Other: six}}},
		{[]netip.Addr{six, a}, []Endpoint{{Addr: six, Other: a}}},
		{[]netip.Addr{a, b, six}, []Endpoint{{Addr: a, Other: six}, {Addr: b}}},
		{[]netip.Addr{a, six, seven}, []Endpoint{{Addr: a, Other: six}, {Addr: seven}}},
	} {
		if got := EndpointsAt(c.addrs, 0); !slices.Equal(got, c.want) {
			t.Errorf("%v: %+v", c.addrs, got)
		}
	}
}

func TestWorkloadSpeaks(t *testing.T) {
	four, six := netip.MustParseAddr("240.240.0.9"), netip.MustParseAddr("100::9")
	for _, c := range []struct {
		own                   []netip.Addr
		speaksFour, speaksSix bool
	}{
		{nil, false, false},
		{[]netip.Addr{netip.MustParseAddr("10.0.0.1")}, true, false},
		{[]netip.Addr{netip.MustParseAddr("fd00::1")}, false, true},
		{[]netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.1")}, true, true},
	} {
		if w := (&Workload{Addrs: c.own}); w.HasFamilyOf(four) != c.speaksFour || w.HasFamilyOf(six) != c.speaksSix {
			t.Errorf("%v: speaks IPv4 %t, IPv6 %t", c.own, w.HasFamilyOf(four), w.HasFamilyOf(six))
		}
	}
}
