//go:build e2e

package node

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/capture"
	"isthmus.dev/isthmus/internal/node/cgroup/cgrouptest"
	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/wellknown"
)

// newWiretap collects the frames that arrive at a namespace with the secret in them, whatever else they are.
func newWiretap(t *testing.T, ns string) *sniffer {
	t.Helper()
	return newSniffer(t, ns, unix.SOCK_RAW, unix.ETH_P_ALL, 20*time.Millisecond, func(frame []byte) string {
		if !bytes.Contains(frame, []byte(theSecret)) {
			return ""
		}
		return fmt.Sprintf("%x", frame)
	})
}

// newBoth is newCaptured with both IP versions, and the app's addresses as a program there may forge packets of.
func newBoth(t *testing.T, name string, rules capture.Rules) (app, far string) {
	t.Helper()
	app, far = newCaptured(t, name, rules)
	for ns, addr := range map[string]string{app: sixApp, far: sixFar} {
		must(t, netns.Do(ns, func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			a, err := netlink.ParseAddr(addr + "/64")
			if err != nil {
				return err
			}
			a.Flags = unix.IFA_F_NODAD
			return errors.Join(netlink.AddrAdd(link, a), os.WriteFile("/proc/sys/net/ipv4/ping_group_range",
				[]byte("0 2147483647"), 0),
				os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0),
				os.WriteFile("/proc/sys/net/ipv4/conf/eth0/rp_filter", []byte("0"), 0),
				os.WriteFile("/proc/sys/net/ipv4/conf/lo/rp_filter", []byte("0"), 0))
		}))
	}
	for ns, group := range map[string]string{
		app: "ff0200000000000000000001ff000002", far: "ff0200000000000000000001ff000003",
	} {
		// the kernel joins the group a moment later
		eventually(t, 5*time.Second, "the address can be found by its neighbours", func() error {
			return netns.Do(ns, func() error {
				groups, err := os.ReadFile("/proc/thread-self/net/igmp6")
				if err == nil && !strings.Contains(string(groups), group) {
					err = errors.New("not yet")
				}
				return err
			})
		})
	}
	return app, far
}

// four is an IPv4 packet with the secret at its end.
func four(src, dst string, protocol byte, head []byte) []byte {
	body := append(bytes.Clone(head), theSecret...)
	b := make([]byte, 20)
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(body)))
	copy(b[12:], net.ParseIP(src).To4())
	copy(b[16:], net.ParseIP(dst).To4())
	binary.BigEndian.PutUint16(b[10:], ^checksum(b, 0))
	if protocol == unix.IPPROTO_ICMP {
		binary.BigEndian.PutUint16(body[2:], ^checksum(body, 0))
	}
	return append(b, body...)
}

// sixPacket is an IPv6 packet with the secret at its end.
func sixPacket(src, dst string, next byte, head []byte) []byte {
	body := append(bytes.Clone(head), theSecret...)
	b := make([]byte, 40)
	b[0], b[6], b[7] = 0x60, next, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(body)))
	copy(b[8:], net.ParseIP(src).To16())
	copy(b[24:], net.ParseIP(dst).To16())
	if next == unix.IPPROTO_ICMPV6 || next == unix.IPPROTO_UDP {
		at := map[byte]int{unix.IPPROTO_ICMPV6: 2, unix.IPPROTO_UDP: 6}[next]
		binary.BigEndian.PutUint16(body[at:],
			^checksum(append(bytes.Clone(b[8:40]), body...), uint32(next)+uint32(len(body))))
	}
	return append(b, body...)
}

func checksum(b []byte, sum uint32) uint16 {
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// udpHead is the header of a datagram with the secret.
func udpHead(port uint16) []byte {
	b := datagram(port)[:8]
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(theSecret)))
	return b
}

func addressOf(t *testing.T, ns, device string) (mac net.HardwareAddr) {
	t.Helper()
	must(t, netns.Do(ns, func() error {
		l, err := netlink.LinkByName(device)
		if err == nil {
			mac = l.Attrs().HardwareAddr
		}
		return err
	}))
	return mac
}

func ethernet(to, from net.HardwareAddr, kind uint16, body []byte) string {
	b := append(append(bytes.Clone(to), from...), byte(kind>>8), byte(kind))
	return hex.EncodeToString(append(b, body...))
}

// A program of user 1000 with CAP_NET_RAW, as many a container has it, gets no word past Envoy, whatever it marks,
// writes or forges.
func TestNetnsCaptureAgainstRawSockets(t *testing.T) {
	app, far := newBoth(t, "raw", capture.Rules{})
	queues := capture.NewQueues(map[capture.Queue]*os.File{})
	must(t, queues.Hold(app))
	defer queues.Close()
	greetSix(t, far, "["+sixFar+"]:80", "far")
	ears, raw := newWiretap(t, far), startRaw(t, app)
	mac, farMAC, lo := addressOf(t, app, "eth0"), addressOf(t, far, "eth0"), make(net.HardwareAddr, 6)
	heard := func(format string, args ...any) string {
		said := raw.do(format, args...)
		if got := ears.take(); len(got) > 0 {
			return fmt.Sprintf("%s: the secret left: %s", said, got[0])
		}
		if strings.HasPrefix(said, "heard") || strings.HasPrefix(said, "connected") {
			return said
		}
		t.Logf("%.60s… %s", fmt.Sprintf(format, args...), said)
		return ""
	}
	hexOf := hex.EncodeToString
	const app4, far4, beyond = "10.78.0.2", "10.78.0.3", "10.78.0.99"
	orders := map[string]string{
		"a ping":                            "ping,10.78.0.3,%#x",
		"a ping of IPv6":                    "ping," + sixFar + ",%#x",
		"UDP":                               "udp,10.78.0.3:999,%#x",
		"UDP of IPv6":                       "udp,[" + sixFar + "]:999,%#x",
		"a question, bound to the device":   "bound,10.78.0.3:53,%#x",
		"one of IPv6":                       "bound,[" + sixFar + "]:53,%#x",
		"one to a loopback":                 "bound,127.0.0.1:53,%#x",
		"UDP from an address of another's":  "udpfrom,10.78.0.3:999,10.78.0.77:9999,%#x",
		"TCP":                               "tcp,10.78.0.3:80,%#x",
		"TCP of IPv6":                       "tcp,[" + sixFar + "]:80,%#x",
		"MPTCP":                             "socket,1,262,10.78.0.3:80,0,%#x",
		"MPTCP of IPv6":                     "socket,1,262,[" + sixFar + "]:80,0,%#x",
		"TCP with data in the first packet": "socket,1,6,10.78.0.3:80,0x20000000,%#x",
		"the same of IPv6":                  "socket,1,6,[" + sixFar + "]:80,0x20000000,%#x",
		"UDP-Lite":                          "socket,2,136,10.78.0.3:999,0,%#x",
		"an SCTP association":               "socket,5,132,10.78.0.3:999,0,%#x",
		"a DCCP connection":                 "socket,6,33,10.78.0.3:999,0,%#x",
		"L2TP":                              "socket,2,115,10.78.0.3:999,0,%#x",
		"an echo request":                   "ip,10.78.0.3,1,0800000000010001,%#x",
		"an echo reply":                     "ip,10.78.0.3,1,0000000000010001,%#x",
		"an ICMP error":                     "ip,10.78.0.3,1,0303000000000000,%#x",
		"an ICMP redirect":                  "ip,10.78.0.3,1,050000000a4e0063,%#x",
		"IGMP":                              "ip,10.78.0.3,2,1600000000000000,%#x",
		"GRE":                               "ip,10.78.0.3,47,00000800,%#x",
		"SCTP":                              "ip,10.78.0.3,132,000000000000000000000000,%#x",
		"DCCP":                              "ip,10.78.0.3,33,000000000000000000000000,%#x",
		"an unknown protocol":               "ip,10.78.0.3,253,00,%#x",
		"a TCP segment":                     "ip,10.78.0.3,6," + hexOf(segment(0x18)) + ",%#x",
		"a TCP reset":                       "ip,10.78.0.3,6," + hexOf(segment(0x04)) + ",%#x",
		"an echo request of IPv6":           "ip," + sixFar + ",58,8000000000010001,%#x",
		"an ICMPv6 error":                   "ip," + sixFar + ",58,0100000000000000,%#x",
		"a router's advertisement":          "ip,ff02::1,58,86000000400007080000000000000000,%#x",
		"a redirect of IPv6":                "ip," + sixFar + ",58,8900000000000000,%#x",
		"a neighbour's advertisement":       "ip,ff02::1,58,8800000020000000fd0078000000000000000000000000030e08,%#x",
		"a neighbour's solicitation": "ip," + sixFar +
			",58,8700000000000000fd0078000000000000000000000000030e08,%#x",
		"a listener's report": "ip,ff02::16,58,8f00000000000001,%#x",
		"a datagram, forged": "packet," + hexOf(four(app4, far4, unix.IPPROTO_UDP, udpHead(999))) +
			",%#x",
		"from far to nowhere": "packet," + hexOf(four(far4, beyond, unix.IPPROTO_UDP, udpHead(999))) +
			",%#x",
		"from far to nowhere, ICMP": "packet," + hexOf(four(far4, beyond, unix.IPPROTO_ICMP,
			[]byte{8, 0, 0, 0, 0, 1, 0, 1})) + ",%#x",
		"from far to itself": "packet," + hexOf(four(far4, app4, unix.IPPROTO_UDP, udpHead(999))) + ",%#x",
		"from far to itself, echo": "packet," + hexOf(four(far4, app4, unix.IPPROTO_ICMP,
			[]byte{8, 0, 0, 0, 0, 1, 0, 1})) + ",%#x",
		"from far to a loopback": "packet," + hexOf(four(far4, "127.0.0.1", unix.IPPROTO_UDP,
			udpHead(999))) + ",%#x",
		"from far to nowhere, IPv6": "packet," + hexOf(sixPacket(sixFar, "fd00:78::99", unix.IPPROTO_UDP,
			udpHead(999))) + ",%#x",
		"from far to itself, IPv6": "packet," + hexOf(sixPacket(sixFar, sixApp, unix.IPPROTO_UDP,
			udpHead(999))) + ",%#x",
		"from far to itself, echo, IPv6": "packet," + hexOf(sixPacket(sixFar, sixApp, unix.IPPROTO_ICMPV6,
			[]byte{128, 0, 0, 0, 0, 1, 0, 1})) + ",%#x",
		"a frame": "frame,eth0," + ethernet(farMAC, mac, 0x0800,
			four(app4, far4, unix.IPPROTO_UDP, udpHead(999))) + ",%#x,plain",
		"a frame past the queue": "frame,eth0," + ethernet(farMAC, mac, 0x0800,
			four(app4, far4, unix.IPPROTO_UDP, udpHead(999))) + ",%#x,bypass",
		"ARP with more than it needs": "frame,eth0," + ethernet(farMAC, mac, 0x0806,
			make([]byte, 28)) + hexOf([]byte(theSecret)) + ",%#x,plain",
		"a frame of an unknown kind": "frame,eth0," + ethernet(farMAC, mac, 0x88b5, []byte(theSecret)) + ",%#x,plain",
		"a frame on the loopback": "frame,lo," + ethernet(lo, lo, 0x0800,
			four(far4, app4, unix.IPPROTO_UDP, udpHead(999))) + ",%#x,plain",
		"a frame on the loopback, past it": "frame,lo," + ethernet(lo, lo, 0x0800,
			four(far4, app4, unix.IPPROTO_ICMP, []byte{8, 0, 0, 0, 0, 1, 0, 1})) + ",%#x,bypass",
		"a frame of IPv6 on the loopback": "frame,lo," + ethernet(lo, lo, 0x86dd,
			sixPacket(sixFar, sixApp, unix.IPPROTO_UDP, udpHead(999))) + ",%#x,plain",
		"an XDP frame": "xdp,eth0,0," + ethernet(farMAC, mac, 0x0800,
			four(app4, far4, unix.IPPROTO_UDP, udpHead(999))),
		"an XDP frame on the loopback": "xdp,lo,0," + ethernet(lo, lo, 0x0800,
			four(far4, app4, unix.IPPROTO_UDP, udpHead(999))),
		"TCP from an address of another's":  "tcpfrom,10.78.0.3:80,10.78.0.77:9999",
		"TCP from another's, to a loopback": "tcpfrom,127.0.0.1:15001,10.78.0.3:9999",
	}
	try := func(t *testing.T, want bool) (left []string) {
		for name, order := range orders {
			marks := []any{0, wellknown.SocketMark, wellknown.InsideMark}
			if want {
				marks = marks[:1]
			}
			if !strings.Contains(order, "%") {
				marks = []any{nil}
			}
			for _, m := range marks {
				full := order
				if m != nil {
					full = fmt.Sprintf(order, m)
				}
				if got := heard("%s", full); got != "" {
					left = append(left, name)
					if !want {
						t.Errorf("%s, mark %v: %.300s", name, m, got)
					}
				}
			}
		}
		return left
	}
	try(t, false)
	t.Run("without capture it is all heard", func(t *testing.T) {
		must(t, capture.Remove(app))
		queues.Close()
		left := strings.Join(try(t, true), ", ")
		for _, name := range []string{
			"a ping", "UDP", "TCP", "a router's advertisement", "from far to itself", "a frame", "an XDP frame",
		} {
			if !strings.Contains(left, name) {
				t.Errorf("%q was not heard: the test hears nothing", name)
			}
		}
		t.Log(left)
	})
}

// What a program takes in Envoy's place, by its ports or by its marks, reaches nobody.
func TestNetnsCaptureAgainstProgramsInEnvoysPlace(t *testing.T) {
	app, far := newBoth(t, "place", capture.Rules{})
	raw := startRaw(t, app)
	for _, port := range []int{15006, 15001, 8088} {
		for _, m := range []int{0, wellknown.SocketMark, wellknown.InsideMark} {
			if m != 0 && port != 8088 {
				continue
			}
			if said := raw.do("listen,%d,%#x", port+m%16, m); said != "listening" {
				t.Fatal(said)
			}
			for _, host := range []string{"10.78.0.2", sixApp} {
				if got := hear(t, far, net.JoinHostPort(host, fmt.Sprint(port+m%16))); got != "refused" {
					t.Errorf("port %d, mark %#x: %s", port, m, got)
				}
			}
		}
	}
	if got := hear(t, far, "10.78.0.2:80"); got != "refused" {
		t.Errorf("what comes in for Envoy: %s", got)
	}
}

// A program that calls the ports of Envoy and of the agent itself, past the redirection, is refused: Envoy would call
// itself.
func TestNetnsCaptureRefusesCallsToItself(t *testing.T) {
	app, far := newBoth(t, "itself", capture.Rules{})
	must(t, cgrouptest.Inside(testGroup, func() error {
		greet(t, app, "127.0.0.1:15001", "outbound")
		greet(t, app, "[::1]:15001", "outbound")
		greet(t, app, "0.0.0.0:15006", "inbound")
		greetSix(t, app, "[::]:15006", "inbound")
		greet(t, app, "127.0.0.1:15053", "dns")
		greet(t, app, "[::1]:15053", "dns")
		return nil
	}))
	for _, host := range []string{"127.0.0.1", "127.8.8.8", "10.78.0.2", "::1", sixApp} {
		for _, port := range []string{"15001", "15006", "15053"} {
			if got := hear(t, app, net.JoinHostPort(host, port)); got != "refused" {
				t.Errorf("%s port %s: %s", host, port, got)
			}
		}
	}
	refusedAtOnce(t, app, "127.0.0.1:15053")
	refusedAtOnce(t, app, "[::1]:15053")
	for addr, want := range map[string]string{
		"10.78.0.3:80": "outbound", "10.78.0.3:15001": "outbound", "[" + sixFar + "]:15006": "outbound",
		"127.0.0.1:53": "dns", "[::1]:53": "dns", "192.0.2.1:53": "dns",
		"10.78.0.2:80": "app 80",
	} {
		if got := hear(t, app, addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	if got := hear(t, far, "10.78.0.2:80"); got != "inbound" {
		t.Errorf("in: %s", got)
	}
}

// Errors of ICMP reach Envoy's connections, which are not tracked: that there is no way on, or none for packets of this
// size, is known at once.
func TestNetnsCaptureLetsErrorsIn(t *testing.T) {
	app, far := newBoth(t, "errors", capture.Rules{})
	for beyond, via := range map[string]string{"10.79.0.1": "10.78.0.3", "fd00:79::1": sixFar} {
		ip := net.ParseIP(beyond)
		to := &net.IPNet{IP: ip, Mask: net.CIDRMask(128, 128)}
		forwarding := "/proc/sys/net/ipv6/conf/all/forwarding"
		if four := ip.To4(); four != nil {
			to, forwarding = &net.IPNet{IP: four, Mask: net.CIDRMask(32, 32)}, "/proc/sys/net/ipv4/ip_forward"
		}
		must(t, netns.Do(app, func() error {
			link, err := netlink.LinkByName("eth0")
			return errors.Join(err,
				netlink.RouteReplace(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: to, Gw: net.ParseIP(via)}))
		}))
		must(t, netns.Do(far, func() error {
			return errors.Join(os.WriteFile(forwarding, []byte("1"), 0),
				netlink.RouteReplace(&netlink.Route{Dst: to, Type: unix.RTN_UNREACHABLE}))
		}))
		// IPv6 begins anew to find its neighbours where it forwards. An answer that comes while connect still holds the
		// socket counts for nothing; the one to the second SYN, after a second, does.
		eventually(t, 10*time.Second, "an error comes in", func() error {
			err := asEnvoy(app, func() error {
				_, err := (&net.Dialer{Timeout: 3 * time.Second, Control: mark(wellknown.SocketMark)}).Dial("tcp",
					net.JoinHostPort(beyond, "80"))
				return err
			})
			if !errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
				return fmt.Errorf("to %s: %w", beyond, err)
			}
			return nil
		})
	}
}
