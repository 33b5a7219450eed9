//go:build e2e

package node

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/node/capture"
	"isthmus.dev/isthmus/internal/node/netns"
)

// echoes serves what is said to it back.
func echoes(t *testing.T, ns, addr string) {
	t.Helper()
	l := listenIn(t, ns, addr)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()
}

func dialled(t *testing.T, ns, addr string) net.Conn {
	t.Helper()
	c, err := dialIn(ns, "tcp", addr)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	must(t, speaks(c))
	return c
}

// speaks says a word, and wants it back.
func speaks(c net.Conn) error {
	must := c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(c, "word"); err != nil {
		return errors.Join(must, err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil {
		return errors.Join(must, err)
	}
	if string(got) != "word" {
		return fmt.Errorf("it said %q", got)
	}
	return must
}

func ends(c net.Conn) capture.Connection {
	return capture.Connection{
		Local:  netip.MustParseAddrPort(c.LocalAddr().String()),
		Remote: netip.MustParseAddrPort(c.RemoteAddr().String()),
	}
}

// addSix gives a device an IPv6 address that is usable at once, and brings the loopback up.
func addSix(ns, addr string) error {
	return netns.Do(ns, func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr + "/64")
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return errors.Join(netlink.AddrAdd(link, a), netlink.LinkSetUp(lo))
	})
}

// dialBetween dials from a very address and port.
func dialBetween(ns, from, to string) error {
	return netns.Do(ns, func() error {
		d := net.Dialer{
			Timeout: time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)),
			Control: func(_, _ string, c syscall.RawConn) error {
				var failed error
				err := c.Control(func(fd uintptr) {
					failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
				})
				return errors.Join(err, failed)
			},
		}
		c, err := d.Dial("tcp", to)
		if err == nil {
			c.Close()
		}
		return err
	})
}

// What was open when a namespace was captured goes on, both ways and in both IP versions, and nothing else does: not a
// new connection between the same ends, and not what was opened later.
func TestNetnsCaptureLeavesOpenConnectionsAlone(t *testing.T) {
	app, far := newNetns(t, "open-app"), newNetns(t, "open-far")
	wire(t, app, "10.78.0.2/24", far, "10.78.0.3/24")
	must(t, errors.Join(addSix(app, sixApp), addSix(far, sixFar)))
	for _, addr := range []string{"10.78.0.3:80", "[" + sixFar + "]:80"} {
		echoes(t, far, addr)
	}
	for _, addr := range []string{"10.78.0.2:80", "[" + sixApp + "]:80"} {
		echoes(t, app, addr)
	}
	open := map[string]net.Conn{
		"out": dialled(t, app, "10.78.0.3:80"), "in": dialled(t, far, "10.78.0.2:80"),
		"out, IPv6": dialled(t, app, "["+sixFar+"]:80"), "in, IPv6": dialled(t, far, "["+sixApp+"]:80"),
		"over the loopback": dialled(t, app, "10.78.0.2:80"),
	}
	rules := capture.Rules{Envoy: envoyGroup(t), LeaveOpen: time.Hour}
	must(t, capture.Install(app, rules))
	all := func(capture.Connection) bool { return true }
	check := func(when string, names ...string) {
		t.Helper()
		for _, name := range names {
			if err := speaks(open[name]); err != nil {
				t.Errorf("%s, %s: %v", when, name, err)
			}
		}
		left, err := capture.OpenConnections(app, all)
		must(t, err)
		for name, c := range open {
			e := ends(c)
			if name[:2] == "in" {
				e.Local, e.Remote = e.Remote, e.Local
			}
			if listed := slices.Contains(left, e); listed != (slices.Contains(names, name) &&
				name != "over the loopback") {
				t.Errorf("%s, %s is among %v: %v", when, name, left, listed)
			}
		}
	}
	check("captured", "out", "in", "out, IPv6", "in, IPv6", "over the loopback")
	must(t, capture.Install(app, rules)) // as the next agent does
	check("captured again", "out", "in", "out, IPv6", "in, IPv6", "over the loopback")
	for _, to := range []string{"10.78.0.3:80", "[" + sixFar + "]:80"} {
		if c, err := dialIn(app, "tcp", to); err == nil {
			c.Close()
			t.Errorf("a new connection to %s is not captured", to)
		}
	}
	if c, err := dialIn(far, "tcp", "10.78.0.2:80"); err == nil {
		c.Close()
		t.Error("a new connection from outside is not captured")
	}

	// The ends of one that was closed begin no other, though nobody has looked since.
	from := open["out"].LocalAddr().String()
	must(t, errors.Join(open["out"].(*net.TCPConn).SetLinger(0), open["out"].Close()))
	if err := dialBetween(app, from, "10.78.0.3:80"); err == nil {
		t.Error("a new connection between the same ends passes")
	}
	check("one closed", "in", "out, IPv6", "in, IPv6", "over the loopback")

	// One that may not go on, as where the workload is strict, is cut.
	_, err := capture.OpenConnections(app, func(c capture.Connection) bool { return c.Local.Addr().Is4() })
	must(t, err)
	if err := speaks(open["out, IPv6"]); err == nil {
		t.Error("one that may not go on goes on")
	}
	check("two cut", "in", "over the loopback")

	// With the last of them the exception goes.
	_, err = capture.OpenConnections(app, func(capture.Connection) bool { return false })
	must(t, err)
	if err := speaks(open["in"]); err == nil {
		t.Error("the last one goes on")
	}
	must(t, capture.Install(app, rules))
	left, err := capture.OpenConnections(app, all)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Without leave nothing goes on.
func TestNetnsCaptureEndsOpenConnections(t *testing.T) {
	app, far := newNetns(t, "ends-app"), newNetns(t, "ends-far")
	wire(t, app, "10.78.0.2/24", far, "10.78.0.3/24")
	echoes(t, far, "10.78.0.3:80")
	c := dialled(t, app, "10.78.0.3:80")
	must(t, capture.Install(app, capture.Rules{Envoy: envoyGroup(t)}))
	if err := speaks(c); err == nil {
		t.Error("it goes on")
	}
}

// An agent leaves alone what was open before it where the workload takes plaintext, tells of it, and cuts it as soon as
// the control plane says that the workload is strict; so does the next agent.
func TestEnvoyAgentFollowsOpenConnections(t *testing.T) {
	p := newPair(t, "leave")
	echoes(t, p.pay, "10.79.0.3:9000")
	open := dialled(t, p.web, "10.79.0.3:9000")
	p.control.tell.Plaintext = map[string]agentapi.Plaintext{
		"default/web-1": {Any: true},
		"default/pay-1": {Except: []uint16{9000}},
	}
	_, stop := runAgent(t, p.cfg)
	told := func(want string) func() error {
		return func() error {
			got := ""
			for _, o := range p.control.lastReport().Outside {
				got += fmt.Sprintf("%s %d; ", o.Workload, o.Count)
			}
			if got != want {
				return fmt.Errorf("the control plane is told %q", got)
			}
			return nil
		}
	}
	eventually(t, 30*time.Second, "both ends are told of", told("default/web-1 1; default/pay-1 1; "))
	must(t, speaks(open))
	stop()
	must(t, speaks(open)) // no agent, no change

	p.control.tell.Plaintext = map[string]agentapi.Plaintext{"default/web-1": {Any: true}, "default/pay-1": {}}
	runAgent(t, p.cfg)
	eventually(t, 30*time.Second, "it is cut where the workload is strict", func() error {
		if speaks(open) == nil {
			return errors.New("it goes on")
		}
		return nil
	})
	eventually(t, 30*time.Second, "nothing is told of any more", told(""))
}
