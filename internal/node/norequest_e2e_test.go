//go:build e2e

package node

import (
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/capture"
	"isthmus.dev/isthmus/internal/node/cgroup/cgrouptest"
	"isthmus.dev/isthmus/internal/node/netns"
)

// met puts what came of an attempt in the words of the page.
func met(said string, err error) string {
	var errno syscall.Errno
	var timeout net.Error
	switch {
	case err == nil:
		return said
	case errors.As(err, &errno):
		return errno.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer"
	}
	return err.Error()
}

// sendsUDP says a word and waits for its echo, or for what the kernel has to say of it.
func sendsUDP(ns, addr string) string {
	said := "passes"
	err := netns.Do(ns, func() error {
		c, err := net.Dial("udp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write([]byte("word")); err != nil {
			return err
		}
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		b := make([]byte, 10)
		n, err := c.Read(b)
		if got := string(b[:n]); err == nil && got == "dns" {
			said = "the agent answers"
		}
		return err
	})
	return met(said, err)
}

// sendsRaw sends a packet of a protocol by a raw socket, and waits for an answer of the same.
func sendsRaw(ns, addr string, protocol int, packet []byte) string {
	said := "passes"
	err := netns.Do(ns, func() error {
		s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		to := &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(addr).To4())}
		if err := unix.Sendto(s, packet, 0, to); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO,
			&unix.Timeval{Usec: 500_000}); err != nil {
			return err
		}
		b := make([]byte, 100)
		_, _, err = unix.Recvfrom(s, b, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return os.ErrDeadlineExceeded
		case protocol == unix.IPPROTO_ICMP && b[20] == 3 && b[21] == 13:
			said = "packet filtered"
		}
		return err
	})
	return met(said, err)
}

func callsTCP(t *testing.T, ns, addr string) string {
	t.Helper()
	said := ""
	err := netns.Do(ns, func() error {
		c, err := net.DialTimeout("tcp", addr, 2*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
			return err
		}
		b := make([]byte, 20)
		n, err := c.Read(b)
		said = string(b[:n])
		return err
	})
	switch {
	case err == nil && (said == "outbound" || said == "inbound"):
		said = "Envoy answers"
	case err == nil && said == "dns":
		said = "the agent answers"
	case err == nil:
		said = "passes"
	}
	return met(said, err)
}

// echoesUDP answers each datagram with a word.
func echoesUDP(t *testing.T, ns, addr, word string) {
	t.Helper()
	var c net.PacketConn
	must(t, netns.Do(ns, func() (err error) { c, err = net.ListenPacket("udp", addr); return err }))
	t.Cleanup(func() { c.Close() })
	go func() {
		for b := make([]byte, 100); ; {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(word), from)
		}
	}()
}

var noRequestRow = regexp.MustCompile(`(?m)^\| ((?:it|another host) [^|]*) \| ([^|]*) \|$`)

// The page docs/requests.md says of each thing that is no request what becomes of it.
func TestNetnsWhatIsNoRequest(t *testing.T) {
	app, far := newNetns(t, "norequest-app"), newNetns(t, "norequest-far")
	wire(t, app, "10.78.0.2/24", far, "10.78.0.3/24")
	must(t, errors.Join(addSix(app, sixApp), addSix(far, sixFar)))
	rules := capture.Rules{Envoy: envoyGroup(t), ExcludeOutboundPorts: []uint16{81}, ExcludeInboundPorts: []uint16{81}}
	must(t, capture.Install(app, rules))
	greet(t, app, "127.0.0.1:15001", "outbound")
	must(t, cgrouptest.Inside(testGroup, func() error { greet(t, app, "0.0.0.0:15006", "inbound"); return nil }))
	greet(t, app, "127.0.0.1:15053", "dns")
	echoesUDP(t, app, "127.0.0.1:15053", "dns")
	for _, port := range []string{"80", "81"} {
		for ns, addrs := range map[string][]string{
			app: {"10.78.0.2", "[" + sixApp + "]"},
			far: {"10.78.0.3", "[" + sixFar + "]"},
		} {
			greet(t, ns, addrs[0]+":"+port, "program")
			echoesUDP(t, ns, addrs[0]+":"+port, "program")
			echoesUDP(t, ns, addrs[1]+":"+port, "program")
		}
	}
	echo := []byte{8, 0, 0xf7, 0xfe, 0, 1, 0, 0}
	both := func(a, b string) string {
		if a == b {
			return a
		}
		return fmt.Sprintf("%s, and %s", a, b)
	}
	attempts := map[string]func() string{
		"it sends UDP to another host":         func() string { return sendsUDP(app, "10.78.0.3:80") },
		"it sends UDP to another host by IPv6": func() string { return sendsUDP(app, "["+sixFar+"]:80") },
		"it sends UDP to an excluded port": func() string {
			return both(sendsUDP(app, "10.78.0.3:81"), sendsUDP(app, "["+sixFar+"]:81"))
		},
		"it sends UDP to itself": func() string { return sendsUDP(app, "10.78.0.2:80") },
		"it asks any DNS server, by UDP or TCP": func() string {
			return both(sendsUDP(app, "10.78.0.3:53"), callsTCP(t, app, "10.78.0.3:53"))
		},
		"it pings another host": func() string {
			return sendsRaw(app, "10.78.0.3", unix.IPPROTO_ICMP, echo)
		},
		"it calls another host by TCP":     func() string { return callsTCP(t, app, "10.78.0.3:80") },
		"it calls an excluded port by TCP": func() string { return callsTCP(t, app, "10.78.0.3:81") },
		"another host sends it UDP":        func() string { return sendsUDP(far, "10.78.0.2:80") },
		"another host sends it UDP to an excluded port": func() string {
			return both(sendsUDP(far, "10.78.0.2:81"), sendsUDP(far, "["+sixApp+"]:81"))
		},
		"another host pings it": func() string {
			return sendsRaw(far, "10.78.0.2", unix.IPPROTO_ICMP, echo)
		},
		"another host calls it by TCP":                func() string { return callsTCP(t, far, "10.78.0.2:80") },
		"another host calls its excluded port by TCP": func() string { return callsTCP(t, far, "10.78.0.2:81") },
		"it sends a packet of a protocol of its own by a raw socket": func() string {
			return sendsRaw(app, "10.78.0.3", 253, []byte("word"))
		},
		"it calls 127.0.0.1:15001 or port 15006, where Envoy is": func() string {
			return both(callsTCP(t, app, "127.0.0.1:15001"), callsTCP(t, app, "10.78.0.2:15006"))
		},
	}
	page, err := os.ReadFile("../../docs/requests.md")
	must(t, err)
	_, section, _ := strings.Cut(string(page), "\n## What is no request\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := noRequestRow.FindAllStringSubmatch(section, -1)
	if len(rows) != len(attempts) {
		t.Errorf("the page has %d rows, this test %d", len(rows), len(attempts))
	}
	for _, row := range rows {
		do := attempts[row[1]]
		if do == nil {
			t.Errorf("nobody does what the page says: %s", row[1])
			continue
		}
		if got := do(); got != row[2] {
			t.Errorf("%s: meets %q, and the page says %q", row[1], got, row[2])
		}
	}
}
