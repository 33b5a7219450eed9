// Package capture redirects a workload's traffic into the node's Envoy: nftables tables in the workload's network
// namespace, replaced atomically.
//
// What they do, in both IP versions:
//
//	out  DNS (udp and tcp 53)            → the agent's DNS
//	     tcp not to the loopback          → Envoy's outbound listener
//	     any other protocol               refused at once; of ICMP, errors and neighbour discovery by the kernel pass
//	     frames that a program writes     dropped
//	in   tcp                              → Envoy's inbound listener
//	     any other protocol               refused at once; of ICMP, errors and neighbour discovery pass
//
// Envoy's sockets are recognised by the control group that Envoy runs in. Its connections carry wellknown.SocketMark or
// wellknown.InsideMark, which tell where they lead. They pass and are not tracked, except a workload's call to itself,
// which is redirected to Envoy again. The tables stay when the agent stops, so that nothing leaves in plaintext while
// the agent is away: connections are refused until it returns.
package capture

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/cgroup"
	"isthmus.dev/isthmus/internal/node/netns"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Table is the name of both tables: that of the rules (family inet) and that of the devices (family netdev).
const Table = "isthmus"

// Rules is what may pass uncaptured.
type Rules struct {
	// Envoy is the control group of Envoy. The zero value is nobody's.
	Envoy cgroup.ID
	// DNSPort on the loopback is where questions are answered; default wellknown.DNSPort.
	DNSPort              uint16
	ExcludeOutboundPorts []uint16
	ExcludeOutboundCIDRs []netip.Prefix
	ExcludeInboundPorts  []uint16
	// LeaveOpen limits how long connections that are open when the namespace is first captured may bypass Envoy. The
	// zero value closes them immediately.
	LeaveOpen time.Duration
	open      bool // there are such connections
}

// Install puts the tables into the namespace at path, each in one transaction. It leaves a table alone that is as it
// should be, so that a restarting agent disturbs nothing.
//
// When the kernel cannot filter outgoing frames, Install installs the rest and returns ErrFrames.
func Install(path string, r Rules) error {
	if err := netns.Do(path, loopbackUp); err != nil {
		return fmt.Errorf("bring up the loopback interface of %s: %w", path, err)
	}
	r.DNSPort = cmp.Or(r.DNSPort, wellknown.DNSPort)
	open, err := r.firstOpen(path)
	if err != nil {
		return err
	}
	r.open = len(open) > 0
	err = install(path, nftables.TableFamilyINet, chains(r), func(c *nftables.Conn, t *nftables.Table) error {
		return addOpen(c, t, open, r.LeaveOpen)
	})
	if err != nil {
		return err
	}
	return Devices(path)
}

// ErrFrames means that a program with CAP_NET_RAW can write frames onto a device past the rules.
var ErrFrames = errors.New("the kernel does not look at frames as they leave (it needs 5.16 or later with " +
	"CONFIG_NETFILTER_EGRESS): " +
	"a program with CAP_NET_RAW can write frames past capture, so give workloads none")

// Devices makes every present device refuse frames that a program writes.
func Devices(path string) error {
	var err error
	for range 3 { // a device may disappear between being listed and being named
		var want []chain
		if err = netns.Do(path, func() error {
			links, err := netlink.LinkList()
			for _, l := range links {
				want = append(want, frames(fmt.Sprintf("out-%d", l.Attrs().Index), l.Attrs().Name))
			}
			return err
		}); err != nil {
			return fmt.Errorf("list the devices of %s: %w", path, err)
		}
		if err = install(path, nftables.TableFamilyNetdev, want, nil); !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return ErrFrames
	}
	return err
}

// install brings one table to the wanted state. It replaces only the rules when the chains are right, so that no packet
// meets a moment without rules: a chain being deleted loses its rules before its policy, which drops, and under load
// that moment lasts. more adds what a new table holds besides its chains.
func install(
	path string, family nftables.TableFamily, want []chain, more func(*nftables.Conn, *nftables.Table) error,
) error {
	return transact(path, func(c *nftables.Conn) error {
		there, err := hasChains(c, family, want)
		if err != nil {
			return err
		}
		t := &nftables.Table{Family: family, Name: Table}
		if there {
			if same, err := sameRules(c, t, want); same || err != nil {
				return err
			}
			c.FlushTable(t)
		} else {
			t = replaceTable(c, family)
			if more != nil {
				if err := more(c, t); err != nil {
					return err
				}
			}
		}
		for _, ch := range want {
			chain := &nftables.Chain{Name: ch.name, Table: t}
			if !there {
				chain = c.AddChain(&nftables.Chain{
					Name: ch.name, Table: t, Type: ch.kind, Hooknum: ch.hook, Priority: ch.priority,
					Policy: &ch.policy, Device: ch.device,
				})
			}
			for _, exprs := range ch.rules {
				c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs})
			}
		}
		return nil
	})
}

// hasChains reports whether the table has exactly the wanted chains, whatever their rules.
func hasChains(c *nftables.Conn, family nftables.TableFamily, want []chain) (bool, error) {
	all, err := c.ListChainsOfTableFamily(family)
	if err != nil {
		return false, err
	}
	have := map[string]*nftables.Chain{}
	for _, ch := range all {
		if ch.Table.Name == Table {
			have[ch.Name] = ch
		}
	}
	for _, w := range want {
		h := have[w.name]
		if h == nil || h.Type != w.kind || h.Hooknum == nil || *h.Hooknum != *w.hook || *h.Priority != *w.priority ||
			h.Policy == nil || *h.Policy != w.policy {
			return false, nil
		}
	}
	return len(have) == len(want), nil
}

// sameRules reports whether the chains have exactly the wanted rules.
func sameRules(c *nftables.Conn, t *nftables.Table, want []chain) (bool, error) {
	for _, w := range want {
		have, err := c.GetRules(t, &nftables.Chain{Name: w.name, Table: t})
		if err != nil {
			return false, err
		}
		if !slices.EqualFunc(have, w.rules,
			func(h *nftables.Rule, r rule) bool { return reflect.DeepEqual(h.Exprs, readable(r)) }) {
			return false, nil
		}
	}
	return true, nil
}

// readable drops the fields that the library writes but does not read back.
func readable(r rule) rule {
	return slices.DeleteFunc(slices.Clone(r), func(e expr.Any) bool {
		_, socket := e.(*expr.Socket)
		return socket
	})
}

// Remove removes the tables from the namespace at path. It returns nil if there are none.
func Remove(path string) error {
	return transact(path, func(c *nftables.Conn) error {
		for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyNetdev} {
			c.DelTable(addTable(c, family))
		}
		return nil
	})
}

// replaceTable adds, deletes and adds the table: deleting clears an existing one, and adding it first makes the
// deletion succeed.
func replaceTable(c *nftables.Conn, family nftables.TableFamily) *nftables.Table {
	c.DelTable(addTable(c, family))
	return addTable(c, family)
}

func addTable(c *nftables.Conn, family nftables.TableFamily) *nftables.Table {
	return c.AddTable(&nftables.Table{Family: family, Name: Table})
}

func transact(path string, build func(*nftables.Conn) error) error {
	var opts []nftables.ConnOption
	if path != "" {
		ns, err := netns.Open(path)
		if err != nil {
			return err
		}
		defer ns.Close()
		opts = append(opts, nftables.WithNetNSFd(int(ns.Fd())))
	}
	c, err := nftables.New(opts...)
	if err != nil {
		return explain(path, err)
	}
	if err := build(c); err != nil {
		return explain(path, err)
	}
	if err := c.Flush(); err != nil {
		return explain(path, err)
	}
	return nil
}

func explain(path string, err error) error {
	at := "this network namespace"
	if path != "" {
		at = path
	}
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, os.ErrPermission):
		return fmt.Errorf("write nftables rules in %s: not permitted; run as root or with CAP_NET_ADMIN: %w", at, err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT),
		errors.Is(err, unix.EINVAL):
		return fmt.Errorf("write nftables rules in %s: the kernel lacks a part of nftables; "+
			"load nf_tables, nft_chain_nat, nft_redir, nft_ct, nft_socket, nft_fib_inet and nft_reject_inet "+
			"(modprobe), or use a kernel that has them: %w", at, err)
	}
	return fmt.Errorf("write nftables rules in %s: %w", at, err)
}

// loopbackUp brings up lo, over which redirected connections travel.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if lo.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	return netlink.LinkSetUp(lo)
}
