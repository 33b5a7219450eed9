// Package capture redirects a workload's traffic into the node's Envoy: one nftables table in the workload's network
// namespace, replaced atomically.
//
// What it does, in both IP versions:
//
//	out  DNS (udp and tcp 53)            → the agent's DNS
//	     tcp not to the loopback          → Envoy's outbound listener
//	     any other protocol               refused at once, ICMP allowed
//	in   tcp                              → Envoy's inbound listener
//	     any other protocol               refused at once, ICMP and answers allowed
//
// Connections that Envoy and the agent make carry agentapi.SocketMark or agentapi.InsideMark, pass, and are not tracked, but
// for a workload's call to itself, which goes to Envoy again. The table stays when the agent stops, so that nothing a workload
// says ever leaves in plaintext while the agent is away: until it returns, connections are refused.
package capture

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/netns"
)

// Table is the name of the table (family inet).
const Table = "isthmus"

// Rules is what may pass uncaptured.
type Rules struct {
	ExcludeOutboundPorts []uint16
	ExcludeOutboundCIDRs []netip.Prefix
	ExcludeInboundPorts  []uint16
}

// Install puts the table into the namespace at path in one transaction, in place of one that is there already. One that is
// as it should be is left alone, so that an agent that starts again disturbs nothing.
//
// Where the chains are there as they should be only the rules are replaced: so no packet meets a moment without them. A
// chain that is deleted has already lost its rules, and not yet its policy, which drops; under load that moment lasts.
func Install(path string, r Rules) error {
	if err := netns.Do(path, loopbackUp); err != nil {
		return fmt.Errorf("bring up the loopback interface of %s: %w", path, err)
	}
	return transact(path, func(c *nftables.Conn) error {
		want := chains(r)
		there, err := inPlace(c, want)
		if err != nil {
			return err
		}
		t := &nftables.Table{Family: nftables.TableFamilyINet, Name: Table}
		if there {
			if same, err := sameRules(c, t, want); same || err != nil {
				return err
			}
			c.FlushTable(t)
		} else {
			t = replaceTable(c)
		}
		for _, ch := range want {
			chain := &nftables.Chain{Name: ch.name, Table: t}
			if !there {
				chain = c.AddChain(&nftables.Chain{
					Name: ch.name, Table: t, Type: ch.kind, Hooknum: ch.hook, Priority: ch.priority, Policy: &ch.policy,
				})
			}
			for _, exprs := range ch.rules {
				c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs})
			}
		}
		return nil
	})
}

// inPlace says whether the table has the very chains that are wanted, whatever their rules.
func inPlace(c *nftables.Conn, want []chain) (bool, error) {
	all, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
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
		if h == nil || h.Type != w.kind || h.Hooknum == nil || *h.Hooknum != *w.hook || *h.Priority != *w.priority || h.Policy == nil || *h.Policy != w.policy {
			return false, nil
		}
	}
	return len(have) == len(want), nil
}

// sameRules says whether the chains, which are there, have the very rules that are wanted.
func sameRules(c *nftables.Conn, t *nftables.Table, want []chain) (bool, error) {
	for _, w := range want {
		have, err := c.GetRules(t, &nftables.Chain{Name: w.name, Table: t})
		if err != nil {
			return false, err
		}
		if !slices.EqualFunc(have, w.rules, func(h *nftables.Rule, r rule) bool { return reflect.DeepEqual(h.Exprs, readable(r)) }) {
			return false, nil
		}
	}
	return true, nil
}

// readable leaves out what the library writes and does not read back.
func readable(r rule) rule {
	return slices.DeleteFunc(slices.Clone(r), func(e expr.Any) bool {
		_, socket := e.(*expr.Socket)
		return socket
	})
}

// Remove takes the table out of the namespace at path; that it was not there is no error.
func Remove(path string) error {
	return transact(path, func(c *nftables.Conn) error {
		c.DelTable(addTable(c))
		return nil
	})
}

// replaceTable adds, deletes and adds the table: the middle step clears one that was there, the first makes it succeed.
func replaceTable(c *nftables.Conn) *nftables.Table {
	c.DelTable(addTable(c))
	return addTable(c)
}

func addTable(c *nftables.Conn) *nftables.Table {
	return c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: Table})
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
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("write nftables rules in %s: the kernel lacks a part of nftables; "+
			"load nf_tables, nft_chain_nat, nft_redir, nft_ct, nft_socket and nft_reject_inet (modprobe), or use a kernel that has them: %w", at, err)
	}
	return fmt.Errorf("write nftables rules in %s: %w", at, err)
}

// loopbackUp: redirected connections travel over lo.
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
