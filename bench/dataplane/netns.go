package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// namespacePrefix marks the bench's own namespaces: whatever bears it may be removed.
const namespacePrefix = "isthmus-t-bench-"

// host is one network namespace with one inner address.
type host struct {
	name string
	addr string // without prefix length
	ns   netns.NsHandle
}

// twoHosts makes two namespaces with a cable between them.
func twoHosts() (a, b *host, err error) {
	removeLeftovers()
	if a, err = newHost("caller", "10.199.0.1"); err != nil {
		return nil, nil, err
	}
	if b, err = newHost("callee", "10.199.0.2"); err != nil {
		a.remove()
		return nil, nil, err
	}
	if err := cable(a, b); err != nil {
		a.remove()
		b.remove()
		return nil, nil, err
	}
	return a, b, nil
}

// removeLeftovers removes what a run that was killed left behind.
func removeLeftovers() {
	left, _ := filepath.Glob("/run/netns/" + namespacePrefix + "*")
	for _, path := range left {
		netns.DeleteNamed(filepath.Base(path)) // when it cannot be removed, making it anew says why
	}
}

func newHost(name, addr string) (*host, error) {
	h := &host{name: namespacePrefix + name, addr: addr}
	err := apart(func() error {
		ns, err := netns.NewNamed(h.name)
		if err != nil {
			return err
		}
		h.ns = ns
		return nil
	})
	if os.IsPermission(err) {
		return nil, fmt.Errorf("make network namespace %s: %w; run the bench as root", h.name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", h.name, err)
	}
	return h, nil
}

func (h *host) remove() {
	h.ns.Close()
	netns.DeleteNamed(h.name)
}

// cable joins two hosts by a veth pair and brings their loopbacks up.
func cable(a, b *host) error {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(b.ns)}
	at, err := netlink.NewHandleAt(a.ns)
	if err != nil {
		return fmt.Errorf("configure %s: %w", a.name, err)
	}
	defer at.Close()
	if err := at.LinkAdd(link); err != nil {
		return fmt.Errorf("join %s and %s: %w", a.name, b.name, err)
	}
	for _, h := range []*host{a, b} {
		if err := h.bringUp(); err != nil {
			return fmt.Errorf("configure %s: %w", h.name, err)
		}
	}
	return nil
}

func (h *host) bringUp() error {
	at, err := netlink.NewHandleAt(h.ns)
	if err != nil {
		return err
	}
	defer at.Close()
	for _, name := range []string{"lo", "eth0"} {
		l, err := at.LinkByName(name)
		if err != nil {
			return err
		}
		if name == "eth0" {
			addr, err := netlink.ParseAddr(h.addr + "/24")
			if err != nil {
				return err
			}
			if err := at.AddrAdd(l, addr); err != nil {
				return err
			}
		}
		if err := at.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

// apart runs f on a thread whose network namespace may be changed: it is put back afterwards, or the thread is given up.
func apart(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer own.Close()
		err = f()
		if netns.Set(own) == nil {
			runtime.UnlockOSThread() // else the thread ends with this goroutine
		}
		done <- err
	}()
	return <-done
}

// inside runs f within the host. Sockets and processes that it makes stay there.
func (h *host) inside(f func() error) error {
	return apart(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("enter %s: %w", h.name, err)
		}
		return f()
	})
}

// dial is a load.Dialer of a process that lives on the host.
func (h *host) dial(ctx context.Context, address string) (conn net.Conn, err error) {
	err = h.inside(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", address) // a literal address: Go dials it on this thread
		return err
	})
	return conn, err
}

// listen is where a server on the host listens.
func (h *host) listen(address string) (l net.Listener, err error) {
	err = h.inside(func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// start starts a process on the host.
func (h *host) start(cmd *exec.Cmd) error {
	return h.inside(func() error {
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start %s: %w", strings.Join(cmd.Args, " "), err)
		}
		return nil
	})
}
