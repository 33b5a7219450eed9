//go:build e2e

package node

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
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

// greet answers every connection with a word.
func greet(t *testing.T, ns, addr, word string) {
	t.Helper()
	welcome(t, listenIn(t, ns, addr), word)
}

func welcome(t *testing.T, l net.Listener, word string) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, word)
			c.Close()
		}
	}()
}

// hear connects and reads what comes; "refused" when that fails within the second that a refusal may take.
func hear(t *testing.T, ns, addr string) string {
	t.Helper()
	began := time.Now()
	c, err := dialIn(ns, "tcp", addr)
	if err == nil {
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		var b []byte
		if b, err = io.ReadAll(c); err == nil {
			return string(b)
		}
	}
	if since := time.Since(began); since > time.Second {
		t.Errorf("%s: refused only after %v", addr, since)
	}
	t.Logf("%s: %v", addr, err)
	return "refused"
}

// two namespaces: app is captured, far is the world.
func newCaptured(t *testing.T, name string, rules capture.Rules) (app, far string) {
	t.Helper()
	app, far = newNetns(t, name+"-app"), newNetns(t, name+"-far")
	wire(t, app, "10.78.0.2/24", far, "10.78.0.3/24")
	rules.Envoy = envoyGroup(t)
	must(t, capture.Install(app, rules))
	for _, p := range []string{"80", "81"} {
		greet(t, far, "10.78.0.3:"+p, "far "+p)
		greet(t, app, "10.78.0.2:"+p, "app "+p)
	}
	return app, far
}

func TestNetnsCaptureFailsClosed(t *testing.T) {
	app, far := newCaptured(t, "closed", capture.Rules{})
	if got := hear(t, app, "10.78.0.3:80"); got != "refused" {
		t.Errorf("out without a listener: %s", got)
	}
	if got := hear(t, far, "10.78.0.2:80"); got != "refused" {
		t.Errorf("in without a listener: %s", got)
	}
	if got := hear(t, app, "10.78.0.2:80"); got != "app 80" {
		t.Errorf("to itself: %s", got)
	}
}

func TestNetnsCaptureRedirects(t *testing.T) {
	app, far := newCaptured(t, "redir", capture.Rules{
		ExcludeOutboundPorts: []uint16{81}, ExcludeInboundPorts: []uint16{81},
		ExcludeOutboundCIDRs: []netip.Prefix{netip.MustParsePrefix("10.78.0.128/25")},
	})
	greet(t, app, "127.0.0.1:15001", "outbound")
	must(t, cgrouptest.Inside(testGroup, func() error { greet(t, app, "0.0.0.0:15006", "inbound"); return nil }))
	greet(t, app, "127.0.0.1:15053", "dns")
	for _, c := range []struct{ ns, addr, want string }{
		{app, "10.78.0.3:80", "outbound"},
		{app, "240.240.0.1:443", "outbound"},
		{app, "192.0.2.1:53", "dns"},
		{app, "127.0.0.1:53", "dns"},
		{app, "10.78.0.3:81", "far 81"},
		{far, "10.78.0.2:80", "inbound"},
		{far, "10.78.0.2:15001", "inbound"},
		{far, "10.78.0.2:15053", "inbound"},
		{far, "10.78.0.2:81", "app 81"},
	} {
		if got := hear(t, c.ns, c.addr); got != c.want {
			t.Errorf("to %s: %s, want %s", c.addr, got, c.want)
		}
	}
	t.Run("marked connections pass", func(t *testing.T) {
		var c net.Conn
		must(t, asEnvoy(app, func() (err error) {
			d := net.Dialer{Control: mark(wellknown.SocketMark), Timeout: time.Second}
			c, err = d.Dial("tcp", "10.78.0.3:80")
			return err
		}))
		defer c.Close()
		if b, err := io.ReadAll(c); err != nil || string(b) != "far 80" {
			t.Errorf("got %q, %v", b, err)
		}
	})
	t.Run("udp in is refused at once", func(t *testing.T) {
		c, err := dialIn(far, "udp", "10.78.0.2:999")
		must(t, err)
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		_, err = c.Write([]byte("x"))
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

// What Envoy may never call ends at the kernel, whatever name led there: it would call itself, or pass on in plaintext
// what is refused.
func TestNetnsCaptureEndsLoops(t *testing.T) {
	app, far := newCaptured(t, "loops", capture.Rules{})
	for _, a := range []string{"240.240.0.9/32", "100::9/128"} {
		must(t, netns.Do(far, func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			ip, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, ip))
		}))
	}
	greet(t, far, "240.240.0.9:80", "far")
	must(t, cgrouptest.Inside(testGroup, func() error { greet(t, app, "127.0.0.1:15001", "Envoy"); return nil }))
	for addr, want := range map[string]string{
		"10.78.0.3:80": "far 80", "240.240.0.9:80": "refused", "127.0.0.1:15001": "refused",
	} {
		got := "refused"
		began := time.Now()
		err := asEnvoy(app, func() error {
			c, err := (&net.Dialer{Control: mark(wellknown.SocketMark), Timeout: 2 * time.Second}).Dial("tcp", addr)
			if err != nil {
				return err
			}
			defer c.Close()
			b, err := io.ReadAll(c)
			got = string(b)
			return err
		})
		if got != want || (want == "refused") != (err != nil) || time.Since(began) > time.Second {
			t.Errorf("%s: %s after %s, %v; want %s", addr, got, time.Since(began), err, want)
		}
	}
}

// The workload called an address, was cut off, and its port went to Envoy, which calls the same address.
func TestNetnsCaptureKeepsEnvoysConnectionsApart(t *testing.T) {
	app, _ := newCaptured(t, "apart", capture.Rules{})
	cut := listenIn(t, app, "127.0.0.1:15001")
	go func() {
		for {
			c, err := cut.Accept()
			if err != nil {
				return
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	from := func(inside func(string, func() error) error, port, m int) (heard string, err error) {
		d := net.Dialer{
			Control: mark(m), Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(10, 78, 0, 2), Port: port},
		}
		err = inside(app, func() error {
			c, err := d.Dial("tcp", "10.78.0.3:80")
			if err != nil {
				return err
			}
			defer c.Close()
			b, err := io.ReadAll(c)
			heard = string(b)
			return err
		})
		return heard, err
	}
	if heard, err := from(netns.Do, 40001, 0); err == nil {
		t.Fatalf("the workload heard %q", heard)
	}
	if heard, err := from(asEnvoy, 40001, wellknown.SocketMark); err != nil || heard != "far 80" {
		t.Errorf("Envoy heard %q: %v", heard, err)
	}
	if heard, err := from(netns.Do, 40001, 0); err == nil {
		t.Errorf("the workload took Envoy's way and heard %q", heard)
	}
}

func TestNetnsCaptureIsReplacedWholeAndRemoved(t *testing.T) {
	app, far := newCaptured(t, "whole", capture.Rules{})
	count := func() int {
		var out []byte
		must(t, netns.Do(app, func() (err error) {
			out, err = exec.Command("nft", "list", "table", "inet", "isthmus").CombinedOutput()
			return err
		}))
		return strings.Count(string(out), "\n")
	}
	if _, err := exec.LookPath("nft"); err == nil {
		before := count()
		must(t, capture.Install(app, capture.Rules{}))
		if after := count(); after != before {
			t.Errorf("%d lines after the second time, %d before", after, before)
		}
	}
	must(t, capture.Install(app, capture.Rules{ExcludeOutboundPorts: []uint16{80}}))
	if got := hear(t, app, "10.78.0.3:80"); got != "far 80" {
		t.Errorf("after an exclusion: %s", got)
	}
	must(t, capture.Remove(app))
	must(t, capture.Remove(app))
	if got := hear(t, far, "10.78.0.2:80"); got != "app 80" {
		t.Errorf("after removal: %s", got)
	}
}

func TestNetnsInodeTellsARemadeNamespace(t *testing.T) {
	path := newNetns(t, "inode")
	first, err := netns.Inode(path)
	must(t, err)
	own, err := netns.Inode("")
	must(t, err)
	if first == own {
		t.Error("the new namespace is our own")
	}
	var st unix.Stat_t
	must(t, netns.Do(path, func() error { return unix.Stat("/proc/thread-self/ns/net", &st) }))
	if st.Ino != first {
		t.Error("Do ran elsewhere")
	}
	must(t, unix.Stat("/proc/thread-self/ns/net", &st))
	if st.Ino != own {
		t.Error("Do did not come home")
	}
}

// Rules are replaced where the chains are as they should be, and the whole table where they are not.
func TestNetnsCaptureMendsItsTable(t *testing.T) {
	app, _ := newCaptured(t, "mends", capture.Rules{})
	envoy := envoyGroup(t)
	nft := func(args ...string) string {
		var out []byte
		must(t, netns.Do(app, func() (err error) {
			out, err = exec.Command("nft", args...).CombinedOutput()
			return err
		}))
		return string(out)
	}
	tables := func(args ...string) string {
		return nft(append(args, "list", "table", "inet", "isthmus")...) + nft(append(args, "list", "table", "netdev",
			"isthmus")...)
	}
	table := func() string { return tables() }
	if _, err := exec.LookPath("nft"); err != nil {
		t.Fatal("this test looks at the table with nft: install nftables")
	}
	want := table()
	for _, damage := range [][]string{
		{"flush", "chain", "inet", "isthmus", "guard-out"},
		{"flush", "table", "inet", "isthmus"},
		{"add", "chain", "inet", "isthmus", "stray"},
		{"chain", "inet", "isthmus", "guard-in", "{ policy accept; }"},
		{"delete", "table", "inet", "isthmus"},
		{"flush", "table", "netdev", "isthmus"},
		{"delete", "table", "netdev", "isthmus"},
	} {
		nft(damage...)
		must(t, capture.Install(app, capture.Rules{Envoy: envoy}))
		if got := table(); got != want {
			t.Errorf("after %v: %s", damage, got)
		}
	}
	if got := hear(t, app, "10.78.0.3:80"); got != "refused" {
		t.Errorf("in the end: %s", got)
	}
	t.Run("what is as it should be is left alone", func(t *testing.T) {
		rules := capture.Rules{
			ExcludeOutboundPorts: []uint16{123}, ExcludeInboundPorts: []uint16{9100},
			ExcludeOutboundCIDRs: []netip.Prefix{
				netip.MustParsePrefix("192.0.2.0/24"),
				netip.MustParsePrefix("2001:db8::/32"),
			},
		}
		must(t, capture.Install(app, rules))
		handles := func() string { return tables("-a") } // a new rule has a new handle
		want := handles()
		must(t, capture.Install(app, rules))
		if got := handles(); got != want {
			t.Errorf("before %s\nafter %s", want, got)
		}
	})
}
