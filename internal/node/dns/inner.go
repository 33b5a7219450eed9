package dns

import (
	"net/netip"
	"strconv"
	"strings"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/model"
)

// inner: the name belongs to the mesh and must not be sent to any outside server: a short name, a name under the mesh's
// domain, one that a resolver made by appending to such a name, and the reverse name of an address that is not public.
func inner(t *agentapi.DNSTable, name string) bool {
	top := name[strings.LastIndex(name, ".")+1:]
	switch {
	case top == name, top == "svc", top == "localhost":
		return true
	case reverse(name):
		addr, ok := reversed(name)
		return !ok || !public(addr)
	case t.MeshSuffix == "":
		return false
	}
	domain := model.DomainOf(t.MeshSuffix)
	return name == domain || strings.HasSuffix(name, "."+domain) ||
		strings.Contains("."+name+".", "."+t.MeshSuffix+".") || t.Hosts[name+"."+t.MeshSuffix] != nil
}

// The suffixes of names that stand for addresses.
const (
	reverse4 = ".in-addr.arpa"
	reverse6 = ".ip6.arpa"
)

func reverse(name string) bool {
	return strings.HasSuffix("."+name, reverse4) || strings.HasSuffix("."+name, reverse6)
}

// reversed returns the address that a name for reverse lookups stands for; false for a part of one.
func reversed(name string) (netip.Addr, bool) {
	if digits, ok := strings.CutSuffix(name, reverse4); ok {
		parts := strings.Split(digits, ".")
		var b [4]byte
		if len(parts) != len(b) {
			return netip.Addr{}, false
		}
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			if err != nil {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	parts := strings.Split(strings.TrimSuffix(name, reverse6), ".")
	var b [16]byte
	if len(parts) != 2*len(b) {
		return netip.Addr{}, false
	}
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 16, 4)
		if err != nil || len(p) != 1 {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}

// notPublic are non-public ranges that netip has no method for: shared addresses (RFC 6598), class E, which holds the
// mesh's virtual addresses, and the discard prefix (RFC 6666), which holds those of IPv6.
var notPublic = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("100::/64"),
}

func public(a netip.Addr) bool {
	a = a.Unmap()
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	return a.IsGlobalUnicast() && !a.IsPrivate()
}
