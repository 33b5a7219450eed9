//go:build e2e

package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/waittest"
)

// troubled waits until the agent reports what is wrong with a workload; an empty word: that nothing is.
func (p *pair) troubled(t *testing.T, workload, word string) {
	t.Helper()
	eventually(t, 10*time.Second, fmt.Sprintf("trouble of %s: %q", workload, word), func() error {
		r := p.control.lastReport()
		at := slices.IndexFunc(r.Troubles, func(t snapshot.Trouble) bool { return t.Workload == workload })
		switch {
		case at < 0 && word != "", at >= 0 && (word == "" || !strings.Contains(r.Troubles[at].Reason, word)):
			return fmt.Errorf("reported %+v", r.Troubles)
		}
		return nil
	})
}

// A program that took the ports of the agent and of Envoy while both were away keeps nobody's agent from starting. Its
// own workload is not served, and hears no plaintext, until it lets them go.
func TestEnvoyServesTheOthersWhereAProgramHoldsPorts(t *testing.T) {
	p := newTrio(t, "held")
	must(t, netns.Do(p.shop, func() error {
		lo, err := netlink.LinkByName("lo")
		return errors.Join(err, netlink.LinkSetUp(lo))
	}))
	inbound := listenIn(t, p.shop, "0.0.0.0:15006")
	for _, host := range []string{"127.0.0.1", "::1"} {
		listenIn(t, p.shop, net.JoinHostPort(host, "15053"))
		must(t, netns.Do(p.shop, func() error {
			c, err := net.ListenPacket("udp", net.JoinHostPort(host, "15053"))
			if err == nil {
				t.Cleanup(func() { c.Close() })
			}
			return err
		}))
	}
	runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "the others' call", p.call)
	p.troubled(t, "default/shop-1", ":15006, in Envoy's place")
	p.reported(t, 2)
	if got := hear(t, p.shop, "240.240.0.1:80"); got != "refused" {
		t.Errorf("the workload that is not served hears %q", got)
	}
	if got := hear(t, p.pay, "10.79.1.2:80"); got != "refused" {
		t.Errorf("the program in Envoy's place says %q", got)
	}
	if _, err := ask(p.shop, "udp", "pay.default.svc.cluster.local.", dns.TypeA); err != nil {
		t.Errorf("questions, whose port is taken, are not answered: %v", err)
	}
	if _, err := ask(p.shop, "tcp", "pay.default.svc.cluster.local.", dns.TypeA); err != nil {
		t.Errorf("questions over TCP: %v", err)
	}
	inbound.Close()
	p.troubled(t, "default/shop-1", "")
	eventually(t, 10*time.Second, "its call", func() error { return call(p.shop) })
	must(t, p.call())
}

// A program that takes Envoy's port in the moment in which Envoy is away has that one listener refused, and no other;
// when it lets the port go, Envoy takes it.
func TestEnvoyServesTheOthersWhereAProgramTakesAPort(t *testing.T) {
	p := newTrio(t, "taken")
	runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	eventually(t, 10*time.Second, "the shop's call", func() error { return call(p.shop) })
	p.control.mu.Lock()
	p.control.refusable = true
	p.control.mu.Unlock()
	must(t, syscall.Kill(pidIn(t, p.cfg.RunDir), syscall.SIGKILL))
	var taken net.Listener
	for begun := time.Now(); taken == nil && time.Since(begun) < waittest.Patience; waittest.Pace(time.Millisecond) {
		_ = netns.Do(p.shop, func() (err error) { taken, err = net.Listen("tcp", "0.0.0.0:15001"); return err })
	}
	if taken == nil {
		t.Fatal("the port was never free")
	}
	defer taken.Close()
	p.troubled(t, "default/shop-1", ":15001, in Envoy's place")
	eventually(t, 10*time.Second, "the others' call", p.call)
	if err := call(p.shop); err == nil {
		t.Error("the workload that is not served calls")
	}
	taken.Close()
	p.troubled(t, "default/shop-1", "")
	eventually(t, 10*time.Second, "the shop's call", func() error { return call(p.shop) })
	must(t, p.call())
}

func TestEnvoyServesTheOthersWhateverIsWrongWithOne(t *testing.T) {
	p := newTrio(t, "wrong")
	odd := filepath.Join(newDir(t, "wrong-odd"), "odd")
	must(t, os.WriteFile(odd, []byte("no namespace"), 0o600))
	socket := p.cfg.Workloads[0].WorkloadSocket.Path
	must(t, os.MkdirAll(filepath.Dir(socket), 0o755))
	must(t, os.WriteFile(socket, []byte("no socket"), 0o600))
	more := p.cfg.Workloads[2]
	more.Name, more.Netns = "odd-1", odd
	p.cfg.Workloads = append(p.cfg.Workloads, more)
	a, _ := runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	eventually(t, 10*time.Second, "the shop's call", func() error { return call(p.shop) })
	p.troubled(t, "default/odd-1", "is a file but not a network namespace")
	p.troubled(t, "default/web-1", "is there and is no socket: remove it")
	eventually(t, 5*time.Second, "ready", func() error { return a.Ready(context.Background()) })

	must(t, os.Remove(socket))
	p.troubled(t, "default/web-1", "")

	address := func(change func(netlink.Link, *netlink.Addr) error) {
		must(t, netns.Do(p.shop, func() error {
			link, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			addr, err := netlink.ParseAddr("10.79.1.2/24")
			return errors.Join(err, change(link, addr))
		}))
	}
	address(netlink.AddrDel)
	p.troubled(t, "default/shop-1",
		"no device of its network namespace has an address of the workload's: give one of them 10.79.1.2")
	p.reported(t, 2)
	must(t, p.call())
	address(netlink.AddrAdd)
	must(t, netns.Do(p.shop, func() error {
		link, err := netlink.LinkByName("eth0")
		return errors.Join(err,
			netlink.RouteReplace(&netlink.Route{
				LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)},
				Scope: netlink.SCOPE_LINK,
			}))
	}))
	p.troubled(t, "default/shop-1", "")
	eventually(t, 10*time.Second, "the shop's call", func() error { return call(p.shop) })
}

// A device that comes later is captured as well, and its queues are held.
func TestEnvoyCapturesADeviceThatComesLater(t *testing.T) {
	p := newTrio(t, "later")
	runAgent(t, p.cfg)
	eventually(t, 10*time.Second, "a call", p.call)
	far := newNetns(t, "later-far")
	wireAs(t, p.web, "eth9", "10.79.9.2/24", far, "eth0", "10.79.9.3/24")
	ears, raw := newWiretap(t, far), startRaw(t, p.web)
	mac, farMAC := addressOf(t, p.web, "eth9"), addressOf(t, far, "eth0")
	body := four("10.79.9.2", "10.79.9.3", 17, udpHead(999))
	frame := ethernet(farMAC, mac, 0x0800, body)
	eventually(t, 5*time.Second, "the device is captured", func() error {
		for _, order := range []string{"frame,eth9," + frame + ",0,plain", "xdp,eth9,0," + frame} {
			said := raw.do("%s", order)
			if got := ears.take(); len(got) > 0 {
				return fmt.Errorf("%s: %s", said, got[0])
			}
		}
		return nil
	})
}

// A workload's identity goes to one namespace, which is its own: not to that of whichever process has a number, not to
// one that another workload lives in, not to the host's, whose traffic would be captured.
func TestEnvoyServesNobodyInAnothersNamespace(t *testing.T) {
	p := newTrio(t, "whose")
	dir := newDir(t, "whose-odd")
	path := func(name string) string { return filepath.Join(dir, name) }
	must(t, os.Symlink(fmt.Sprintf("/proc/%d/ns/net", os.Getpid()), path("process")))
	must(t, os.Symlink(p.shop, path("shop")))
	must(t, os.WriteFile(path("host"), nil, 0o600))
	must(t, unix.Mount(netns.OwnPath, path("host"), "", unix.MS_BIND, ""))
	defer func() { must(t, unix.Unmount(path("host"), 0)) }()
	for _, name := range []string{"process", "shop", "host"} {
		more := p.cfg.Workloads[2]
		more.Name, more.Netns = "odd-"+name, path(name)
		p.cfg.Workloads = append(p.cfg.Workloads, more)
	}
	runAgent(t, p.cfg)
	p.troubled(t, "default/odd-process",
		"leads to the network namespace of a process, by a number that another process has next")
	p.troubled(t, "default/odd-shop",
		"workload default/shop-1 lives in its network namespace already, under another path")
	p.troubled(t, "default/odd-host", "its network namespace is the agent's own, which is the host's")
	eventually(t, 10*time.Second, "the shop's call", func() error { return call(p.shop) })
	p.reported(t, 3)
	if out, err := exec.Command("nft", "list", "table", "inet", "isthmus").CombinedOutput(); err == nil {
		t.Errorf("the host is captured: %s", out)
	}
	must(t, os.Remove(path("shop")))
	must(t, os.Symlink(newNetns(t, "whose-other"), path("shop")))
	p.troubled(t, "default/odd-shop", "no device of its network namespace has an address of the workload's")
}
