//go:build e2e

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/cgroup"
	"isthmus.dev/isthmus/internal/node/envoyproc"
	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/waittest"
)

// needRoot fails, and does not skip: these tests mean nothing elsewhere.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root, for example `sudo make test`")
	}
}

func needEnvoy(t *testing.T) string {
	t.Helper()
	path, err := LocateEnvoy(filepath.Join("..", "..", ".cache"))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// newNetns makes a named network namespace, in place of one that a crashed run left.
func newNetns(t *testing.T, name string) string {
	t.Helper()
	needRoot(t)
	name = "isthmus-t-" + name
	_ = vnetns.DeleteNamed(name)
	inThread(t, func() {
		ns, err := vnetns.NewNamed(name) // moves the thread into it
		must(t, err)
		ns.Close()
	})
	t.Cleanup(func() { _ = vnetns.DeleteNamed(name) })
	return "/run/netns/" + name
}

// newDir makes the directory of one agent, whose run directory is run. It has the same path each time: an Envoy that an
// earlier run left there, because it crashed, is found and ended.
func newDir(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join("/run", "isthmus-t-"+name)
	clean := func() {
		sidecars, err := filepath.Glob(filepath.Join(dir, "run", "envoy-*"))
		must(t, err)
		for _, d := range append(sidecars, filepath.Join(dir, "run")) {
			must(t, envoyproc.End(d))
		}
		must(t, os.RemoveAll(dir))
		g := cgroup.New(ControlGroup("node-1", filepath.Join(dir, "run"))) // which an agent that was killed leaves
		must(t, g.Make())
		must(t, g.Remove())
		g.Close()
	}
	clean()
	must(t, os.Mkdir(dir, 0o700))
	t.Cleanup(clean)
	return dir
}

// inThread runs fn on a thread that is thrown away, or brought home.
func inThread(t *testing.T, fn func()) {
	t.Helper()
	runtime.LockOSThread()
	home, err := vnetns.Get()
	must(t, err)
	defer home.Close()
	fn()
	must(t, vnetns.Set(home))
	runtime.UnlockOSThread()
}

// wire joins two namespaces by a veth pair, and sends everything unknown across it.
func wire(t *testing.T, a, aAddr, b, bAddr string) {
	t.Helper()
	wireAs(t, a, "eth0", aAddr, b, "eth0", bAddr)
}

// wireAs does it with other names of the two ends; one that another pair has already is replaced, and that pair goes.
func wireAs(t *testing.T, a, aName, aAddr, b, bName, bAddr string) {
	t.Helper()
	for ns, name := range map[string]string{a: aName, b: bName} {
		must(t, netns.Do(ns, func() error {
			if old, err := netlink.LinkByName(name); err == nil {
				return netlink.LinkDel(old)
			}
			return nil
		}))
	}
	nsA, err := vnetns.GetFromPath(a)
	must(t, err)
	defer nsA.Close()
	nsB, err := vnetns.GetFromPath(b)
	must(t, err)
	defer nsB.Close()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: aName, Namespace: netlink.NsFd(nsA)},
		PeerName:  bName, PeerNamespace: netlink.NsFd(nsB),
	}
	must(t, netlink.LinkAdd(veth))
	for ns, end := range map[string][2]string{a: {aName, aAddr}, b: {bName, bAddr}} {
		must(t, netns.Do(ns, func() error {
			link, err := netlink.LinkByName(end[0])
			if err != nil {
				return err
			}
			ip, err := netlink.ParseAddr(end[1])
			if err != nil {
				return err
			}
			all := &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
			if ip.IP.To4() == nil {
				all = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
				ip.Flags = unix.IFA_F_NODAD // usable at once
			}
			return errors.Join(netlink.AddrAdd(link, ip), netlink.LinkSetUp(link),
				netlink.RouteReplace(&netlink.Route{
					LinkIndex: link.Attrs().Index, Dst: all, Scope: netlink.SCOPE_LINK,
				}))
		}))
	}
}

// listenIn opens a TCP listener inside a namespace.
func listenIn(t *testing.T, ns, addr string) net.Listener {
	t.Helper()
	var l net.Listener
	network := "tcp" // of 0.0.0.0 alone that would be both versions, or not, by what the process saw first
	if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().Is4() {
		network = "tcp4"
	}
	must(t, netns.Do(ns, func() (err error) { l, err = net.Listen(network, addr); return err }))
	t.Cleanup(func() { l.Close() })
	return l
}

// freeAddress is one on the loopback where nothing listens now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	return l.Addr().String()
}

func dialIn(ns, network, addr string) (net.Conn, error) {
	var c net.Conn
	err := netns.Do(ns, func() (err error) {
		c, err = (&net.Dialer{Timeout: 2 * time.Second}).Dial(network, addr)
		return err
	})
	return c, err
}

// get asks for a page from inside a namespace.
func get(ns, url string) (string, error) {
	client := http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			return dialIn(ns, network, addr)
		},
	}}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, body), err
}

// eventually waits until fn says nothing is wrong.
func eventually(t *testing.T, most time.Duration, what string, fn func() error) {
	t.Helper()
	t.Logf("%s after %v", what, waittest.Within(t, most, what, fn).Round(time.Millisecond))
}

// runAgent runs an agent to the end of the test, or until stop is called.
func runAgent(t *testing.T, cfg Config) (a *Agent, stop func()) {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	a, err := New(cfg)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	awaitSocket(cfg.RunDir)
	return a, stop
}

// awaitSocket gives an agent a while to capture, which it does before it opens its socket: until then what a test sends
// goes nowhere, and takes its time for it.
func awaitSocket(runDir string) {
	for range 200 {
		if _, err := os.Stat(filepath.Join(runDir, "metrics.sock")); err == nil {
			return
		}
		waittest.Pace(5 * time.Millisecond)
	}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b[:len(b)-1]))
	return len(b), nil
}

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	must(t, err)
	return string(b)
}

// mark sets a socket's mark before it connects.
func mark(m int) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, m)
		}); e != nil {
			return e
		}
		return err
	}
}
