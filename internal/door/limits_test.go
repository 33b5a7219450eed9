package door

import (
	"net/netip"
	"testing"
)

// Those without a certificate are bounded by where they come from: one address cannot keep the others out.
func TestStrangersOfOneAddressAreBounded(t *testing.T) {
	l := newLimits()
	from := func(a string) *call {
		return &call{
			name: "join", Method: Method{AtOnce: 128},
			caller: Caller{Kind: Stranger, Addr: netip.MustParseAddr(a)},
		}
	}
	for range 128 {
		if err := l.take(from("2001:db8:1:2::1")); err != nil {
			t.Fatalf("refused early: %v", err)
		}
	}
	if l.take(from("2001:db8:1:2::9")) == nil {
		t.Error("one network fills the door")
	}
	if err := l.take(from("2001:db8:1:3::1")); err != nil {
		t.Errorf("another network is refused: %v", err)
	}
	l.leave(from("2001:db8:1:2::1"))
	if err := l.take(from("2001:db8:1:2::9")); err != nil {
		t.Errorf("a place that was left is not given again: %v", err)
	}
	for range 128 {
		l.leave(from("2001:db8:1:2::1"))
	}
	l.leave(from("2001:db8:1:3::1"))
	if len(l.now) != 0 {
		t.Errorf("remembered after they left: %v", l.now)
	}
}

// Nor can many addresses together fill us.
func TestStrangersAreBoundedInAll(t *testing.T) {
	l := newLimits()
	from := func(i int) *call {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		return &call{name: "join", Method: Method{AtOnce: 128, InAll: 1024}, caller: Caller{Kind: Stranger, Addr: a}}
	}
	for i := range 1024 {
		if err := l.take(from(i)); err != nil {
			t.Fatalf("refused early: %v", err)
		}
	}
	if l.take(from(5000)) == nil {
		t.Error("the calls of many addresses have no end")
	}
	l.leave(from(0))
	if err := l.take(from(5000)); err != nil {
		t.Errorf("a place that was left is not given again: %v", err)
	}
}

// A host has a whole network of IPv6 addresses, and counts as one.
func TestAddressOf(t *testing.T) {
	for from, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "2001:db8:1:2::9": "2001:db8:1:2::",
		"2001:db8:1:3::9": "2001:db8:1:3::", "fe80::1%eth0": "fe80::",
	} {
		if got := (Caller{Addr: netip.MustParseAddr(from)}).Net(); got != netip.MustParseAddr(want) {
			t.Errorf("%s counts as %s, want %s", from, got, want)
		}
	}
}

// An administrator by certificate has so many actions a second, and a user of the socket is never kept waiting.
func TestRatesBindAdministrators(t *testing.T) {
	d := New(Config{})
	attempt := func(k Kind, name string) *call {
		return &call{name: "token", Method: Method{Rate: 1, Burst: 3}, ctx: t.Context(), caller: Caller{
			Kind: k, Name: name, Addr: netip.MustParseAddr("192.0.2.1"),
		}}
	}
	took := map[string]int{}
	for range 50 {
		for _, c := range []*call{
			attempt(Administrator, "ada"), attempt(Administrator, "eva"),
			attempt(Local, "root"),
		} {
			if d.limit(c) == nil {
				took[c.caller.Name]++
			}
		}
	}
	if took["ada"] != 3 || took["eva"] != 3 || took["root"] != 50 {
		t.Errorf("carried out: %v", took)
	}
}
