//go:build e2e

package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/capture"
	"isthmus.dev/isthmus/internal/node/cgroup/cgrouptest"
	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/waittest"
	"isthmus.dev/isthmus/internal/wellknown"
)

const (
	sixApp = "fd00:78::2"
	sixFar = "fd00:78::3"
)

// newSixCaptured is two namespaces with IPv6 alone: app is captured, far is the world. A link-local address needs its
// zone.
func newSixCaptured(t *testing.T, name string, rules capture.Rules) (app, far, appLocal, farLocal string) {
	t.Helper()
	app, far = newNetns(t, name+"-app"), newNetns(t, name+"-far")
	for _, ns := range []string{app, far} {
		must(t, netns.Do(ns, func() error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		}))
	}
	wire(t, app, sixApp+"/64", far, sixFar+"/64")
	rules.Envoy = envoyGroup(t)
	must(t, capture.Install(app, rules))
	local := func(ns string) (text string) {
		eventually(t, 5*time.Second, "a link-local address", func() error {
			return netns.Do(ns, func() error {
				link, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
				for _, a := range addrs {
					if a.IP.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_TENTATIVE == 0 {
						text = a.IP.String() + "%eth0"
						return nil
					}
				}
				return errors.Join(err, errors.New("none"))
			})
		})
		return text
	}
	return app, far, local(app), local(far)
}

// greetSix is greet for all IPv6 addresses. What is "tcp" at [::] is for Go IPv4, if it first looked around where IPv6
// was off.
func greetSix(t *testing.T, ns, addr, word string) {
	t.Helper()
	var l net.Listener
	must(t, netns.Do(ns, func() (err error) { l, err = net.Listen("tcp6", addr); return err }))
	welcome(t, l, word)
}

// hearWith is hear, with options set on the socket.
func hearWith(t *testing.T, ns, addr string, options func(fd int) error) string {
	t.Helper()
	began := time.Now()
	var said string
	err := netns.Do(ns, func() error {
		d := net.Dialer{Timeout: time.Second, Control: func(_, _ string, c syscall.RawConn) (err error) {
			return errors.Join(c.Control(func(fd uintptr) { err = options(int(fd)) }), err)
		}}
		c, err := d.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		b, err := io.ReadAll(c)
		said = string(b)
		return err
	})
	if err != nil {
		t.Logf("%s: %v", addr, err)
		said = "refused"
	}
	if since := time.Since(began); since > 900*time.Millisecond {
		t.Errorf("%s: %s only after %v", addr, said, since)
	}
	return said
}

// extension is a socket option that puts an extension header into every packet.
func extension(option int, header []byte) func(int) error {
	return func(fd int) error { return unix.SetsockoptString(fd, unix.IPPROTO_IPV6, option, string(header)) }
}

var padding = []byte{0, 0, 1, 4, 0, 0, 0, 0} // options that say nothing; the first byte is filled in by the kernel

func TestNetnsCaptureIPv6RedirectsWhateverCarriesTCP(t *testing.T) {
	app, far, appLocal, farLocal := newSixCaptured(t, "sixtcp", capture.Rules{
		ExcludeOutboundCIDRs: []netip.Prefix{netip.MustParsePrefix("fd00:78::8/125")},
		ExcludeOutboundPorts: []uint16{81}, ExcludeInboundPorts: []uint16{81},
	})
	must(t, netns.Do(far, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr("fd00:78::9/64")
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		return netlink.AddrAdd(link, a)
	}))
	// the kernel joins the group a moment later
	eventually(t, 5*time.Second, "the address can be found by its neighbours", func() error {
		return netns.Do(far, func() error {
			groups, err := os.ReadFile("/proc/thread-self/net/igmp6")
			if err == nil && !strings.Contains(string(groups), "ff0200000000000000000001ff000009") {
				err = errors.New("not yet")
			}
			return err
		})
	})
	for _, p := range []string{"80", "81"} {
		greetSix(t, far, "[::]:"+p, "far "+p)
		greetSix(t, app, "[::]:"+p, "app "+p)
	}
	greet(t, app, "[::1]:15001", "outbound")
	must(t, cgrouptest.Inside(testGroup, func() error { greetSix(t, app, "[::]:15006", "inbound"); return nil }))
	greet(t, app, "[::1]:15053", "dns")
	none := func(int) error { return nil }
	for _, c := range []struct {
		name, ns, host, port, want string
		options                    func(int) error
	}{
		{"out", app, sixFar, "80", "outbound", none},
		{"out to a virtual address", app, "100::f0f0:101", "80", "outbound", none},
		{"out, destination options", app, sixFar, "80", "outbound", extension(unix.IPV6_DSTOPTS, padding)},
		{"out, hop-by-hop options", app, sixFar, "80", "outbound", extension(unix.IPV6_HOPOPTS, padding)},
		{"out to a link-local address", app, farLocal, "80", "refused", none},
		{"DNS at a link-local address", app, farLocal, "53", "refused", none},
		{"out, excluded port", app, sixFar, "81", "far 81", none},
		{"out, excluded range", app, "fd00:78::9", "80", "far 80", none},
		{"foreign DNS", app, sixFar, "53", "dns", none},
		{"to itself", app, sixApp, "80", "app 80", none},
		{"in", far, sixApp, "80", "inbound", none},
		{"in, destination options", far, sixApp, "80", "inbound", extension(unix.IPV6_DSTOPTS, padding)},
		{"in to a link-local address", far, appLocal, "80", "inbound", none},
		{"in, outbound listener", far, sixApp, "15001", "inbound", none},
		{"in, excluded port", far, sixApp, "81", "app 81", none},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := hearWith(t, c.ns, net.JoinHostPort(c.host, c.port), c.options); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// newSpy collects what arrives at a namespace in IPv6 and is no ICMPv6.
func newSpy(t *testing.T, ns string) *sniffer {
	t.Helper()
	return newSniffer(t, ns, unix.SOCK_DGRAM, unix.ETH_P_IPV6, 100*time.Millisecond, func(packet []byte) string {
		if len(packet) < 40 {
			return ""
		}
		next, rest := packet[6], packet[40:]
		if next == unix.IPPROTO_HOPOPTS && len(rest) >= 8 {
			next = rest[0] // multicast listener reports
		}
		if next == unix.IPPROTO_ICMPV6 {
			return ""
		}
		return fmt.Sprintf("next header %d: %x", packet[6], packet[40:min(len(packet), 80)])
	})
}

// packet is a whole IPv6 packet from app to a destination.
func packet(to string, next byte, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], net.ParseIP(sixApp))
	copy(b[24:], net.ParseIP(to))
	return append(b, payload...)
}

func datagram(port uint16) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint16(b, 4000)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint16(b[4:], 12)
	return b
}

// segment is a TCP segment with the flags.
func segment(flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, 4001)
	binary.BigEndian.PutUint16(b[2:], 80)
	b[12], b[13] = 0x50, flags
	return b
}

// behind puts an extension header of eight bytes before a payload.
func behind(next byte, rest []byte, payload []byte) []byte {
	return append(append([]byte{next}, rest...), payload...)
}

// send puts a packet on the wire as a program with raw sockets would.
func send(ns, to string, b []byte, mark int) error {
	return netns.Do(ns, func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		dst := &unix.SockaddrInet6{Addr: netip.MustParseAddr(to).As16()}
		if strings.HasPrefix(to, "ff02:") {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			dst.ZoneId = uint32(link.Attrs().Index)
		}
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark), unix.Sendto(fd, b, 0, dst))
	})
}

// Nothing but ICMPv6 leaves a captured namespace past Envoy, whatever a packet is wrapped in, and neighbours are still
// found.
func TestNetnsCaptureIPv6LetsNothingPast(t *testing.T) {
	app, far, _, farLocal := newSixCaptured(t, "sixraw", capture.Rules{})
	eyes := newSpy(t, far)
	pad := []byte{0, 1, 4, 0, 0, 0, 0}
	farBytes := net.ParseIP(sixFar).To16()
	for name, c := range map[string]struct {
		to   string
		next byte
		body []byte
	}{
		"TCP":                            {sixFar, unix.IPPROTO_TCP, segment(2)},
		"TCP of no connection":           {sixFar, unix.IPPROTO_TCP, segment(16)},
		"TCP reset":                      {sixFar, unix.IPPROTO_TCP, segment(4)},
		"UDP":                            {sixFar, unix.IPPROTO_UDP, datagram(999)},
		"UDP to all nodes":               {"ff02::1", unix.IPPROTO_UDP, datagram(999)},
		"multicast DNS":                  {"ff02::fb", unix.IPPROTO_UDP, datagram(5353)},
		"UDP behind hop-by-hop options":  {sixFar, unix.IPPROTO_HOPOPTS, behind(unix.IPPROTO_UDP, pad, datagram(999))},
		"UDP behind destination options": {sixFar, unix.IPPROTO_DSTOPTS, behind(unix.IPPROTO_UDP, pad, datagram(999))},
		"TCP behind destination options": {sixFar, unix.IPPROTO_DSTOPTS, behind(unix.IPPROTO_TCP, pad, segment(2))},
		"TCP behind two of them": {
			sixFar, unix.IPPROTO_HOPOPTS,
			behind(unix.IPPROTO_DSTOPTS, pad, behind(unix.IPPROTO_TCP, pad, segment(2))),
		},
		"UDP behind a routing header": {
			sixFar, unix.IPPROTO_ROUTING,
			append([]byte{unix.IPPROTO_UDP, 2, 2, 1, 0, 0, 0, 0}, append(farBytes, datagram(999)...)...),
		},
		"TCP behind a routing header": {
			sixFar, unix.IPPROTO_ROUTING,
			append([]byte{unix.IPPROTO_TCP, 2, 2, 1, 0, 0, 0, 0}, append(farBytes, segment(2)...)...),
		},
		"a whole UDP as a fragment": {
			sixFar, unix.IPPROTO_FRAGMENT,
			behind(unix.IPPROTO_UDP, []byte{0, 0, 0, 0, 0, 0, 1}, datagram(999)),
		},
		"a first fragment": {
			sixFar, unix.IPPROTO_FRAGMENT,
			behind(unix.IPPROTO_UDP, []byte{0, 0, 1, 0, 0, 0, 2}, append(datagram(999), make([]byte, 4)...)),
		},
		"a later fragment": {
			sixFar, unix.IPPROTO_FRAGMENT,
			behind(unix.IPPROTO_TCP, []byte{0, 0, 16, 0, 0, 0, 3}, segment(2)),
		},
		"IPv6 in IPv6": {sixFar, unix.IPPROTO_IPV6, packet(sixFar, unix.IPPROTO_UDP, datagram(999))},
		"IPv4 in IPv6": {sixFar, unix.IPPROTO_IPIP, make([]byte, 40)},
		"GRE":          {sixFar, unix.IPPROTO_GRE, make([]byte, 40)},
		"ESP":          {sixFar, unix.IPPROTO_ESP, make([]byte, 40)},
		"an authentication header": {
			sixFar, unix.IPPROTO_AH,
			append([]byte{unix.IPPROTO_UDP, 4, 0, 0}, append(make([]byte, 20), datagram(999)...)...),
		},
		"SCTP":                           {sixFar, unix.IPPROTO_SCTP, make([]byte, 40)},
		"no next header":                 {sixFar, unix.IPPROTO_NONE, make([]byte, 40)},
		"an unknown protocol":            {sixFar, 253, make([]byte, 40)},
		"an unknown one, behind options": {sixFar, unix.IPPROTO_DSTOPTS, behind(253, pad, make([]byte, 40))},
		"a mapped IPv4 address":          {"::ffff:10.78.0.3", unix.IPPROTO_UDP, datagram(999)},
		"destination options without end": {
			sixFar, unix.IPPROTO_DSTOPTS,
			[]byte{unix.IPPROTO_UDP, 200, 1, 4, 0, 0, 0, 0},
		},
	} {
		err := send(app, c.to, packet(c.to, c.next, c.body), 0)
		if got := eyes.take(); len(got) > 0 {
			t.Errorf("%s passed (%v): %v", name, err, got)
		}
	}
	for _, addr := range []string{
		net.JoinHostPort(farLocal, "999"), net.JoinHostPort("ff02::1%eth0", "999"),
		net.JoinHostPort("ff02::fb%eth0", "5353"),
	} {
		refusedAtOnce(t, app, addr)
	}
	refusedAtOnce(t, app, net.JoinHostPort(farLocal, "53"))
	if got := eyes.take(); len(got) > 0 {
		t.Errorf("UDP passed: %v", got)
	}

	greetSix(t, far, "[::]:80", "far")
	must(t, netns.Do(app, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		neighbours, err := netlink.NeighList(link.Attrs().Index, netlink.FAMILY_V6)
		for _, n := range neighbours {
			err = errors.Join(err, netlink.NeighDel(&n))
		}
		return err
	}))
	marked := func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, wellknown.SocketMark) }
	must(t, cgrouptest.Inside(testGroup, func() error {
		if got := hearWith(t, app, net.JoinHostPort(sixFar, "80"), marked); got != "far" {
			t.Errorf("Envoy's own connection, to a neighbour that must first be found: %s", got)
		}
		return nil
	}))
	eyes.take()
	must(t, capture.Remove(app))
	must(t, send(app, sixFar, packet(sixFar, unix.IPPROTO_DSTOPTS, behind(unix.IPPROTO_UDP, pad, datagram(999))), 0))
	if got := eyes.take(); len(got) != 1 {
		t.Errorf("without capture was seen: %v", got)
	}
}

// refusedAtOnce says one UDP packet where it must not go.
func refusedAtOnce(t *testing.T, ns, addr string) {
	t.Helper()
	c, err := dialIn(ns, "udp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	if _, err = c.Write([]byte("x")); err == nil {
		_, err = c.Read(make([]byte, 1))
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("UDP to %s: %v", addr, err)
	}
}

// From outside nothing but TCP, by Envoy, and ICMPv6 comes in.
func TestNetnsCaptureIPv6LetsNothingIn(t *testing.T) {
	app, far, appLocal, _ := newSixCaptured(t, "sixin", capture.Rules{})
	var heard []string
	var mu sync.Mutex // guards heard
	listen := func(network, addr string) {
		var c net.PacketConn
		must(t, netns.Do(app, func() (err error) { c, err = net.ListenPacket(network, addr); return err }))
		t.Cleanup(func() { c.Close() })
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := c.ReadFrom(buf)
				if err != nil {
					return
				}
				mu.Lock()
				heard = append(heard, fmt.Sprintf("%s from %v: %x", network, from, buf[:n]))
				mu.Unlock()
			}
		}()
	}
	listen("udp6", "[::]:999")
	listen("ip6:253", "::")
	listen("ip6:132", "::")
	for _, addr := range []string{net.JoinHostPort(sixApp, "999"), net.JoinHostPort(appLocal, "999")} {
		refusedAtOnce(t, far, addr)
	}
	pad := []byte{0, 1, 4, 0, 0, 0, 0}
	to := func(dst string, next byte, body []byte) {
		b := packet(dst, next, body)
		copy(b[8:], net.ParseIP(sixFar))
		must(t, send(far, dst, b, 0))
	}
	to("ff02::1", unix.IPPROTO_UDP, datagram(999))
	to(sixApp, 253, make([]byte, 8))
	to(sixApp, unix.IPPROTO_SCTP, make([]byte, 40))
	to(sixApp, unix.IPPROTO_DSTOPTS, behind(253, pad, make([]byte, 8)))
	to(sixApp, unix.IPPROTO_HOPOPTS, behind(unix.IPPROTO_UDP, pad, datagram(999)))
	to(sixApp, unix.IPPROTO_FRAGMENT, behind(253, []byte{0, 0, 0, 0, 0, 0, 1}, make([]byte, 8)))
	waittest.Quiet(100 * time.Millisecond)
	mu.Lock()
	got := heard
	heard = nil
	mu.Unlock()
	if len(got) > 0 {
		t.Errorf("came in: %v", got)
	}
	must(t, capture.Remove(app))
	to(sixApp, 253, make([]byte, 8))
	eventually(t, 2*time.Second, "without capture it is heard", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(heard) == 0 {
			return errors.New("nothing")
		}
		return nil
	})
}
