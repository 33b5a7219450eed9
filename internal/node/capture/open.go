package capture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/node/netns"
)

// Connection is a TCP connection as seen from the namespace.
type Connection struct{ Local, Remote netip.AddrPort }

// String is for people and logs.
func (c Connection) String() string { return c.Local.String() + " with " + c.Remote.String() }

// openSet holds connections of one IP version that were open when the namespace was captured and may go on. Nothing is
// added later. An entry lets no new connection through, since that would begin with a SYN.
type openSet struct {
	name   string
	family byte
	typ    nftables.SetDatatype
	// where the addresses are in the IP header, and the registers for local address and port, remote address and port
	source, destination, length uint32
	registers                   [4]uint32
}

var openSets = []openSet{
	{
		name: "open4", family: unix.NFPROTO_IPV4, source: 12, destination: 16, length: 4,
		registers: [4]uint32{1, 9, 10, 11},
		typ: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService, nftables.TypeIPAddr,
			nftables.TypeInetService),
	},
	{
		name: "open6", family: unix.NFPROTO_IPV6, source: 8, destination: 24, length: 16,
		registers: [4]uint32{1, 2, 13, 17},
		typ: nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService, nftables.TypeIP6Addr,
			nftables.TypeInetService),
	},
}

const (
	// mostOpen bounds the connections left alone in one namespace; openBatch bounds those in one message.
	mostOpen  = 16384
	openBatch = 256
)

// set returns the nftables set in a table. The kernel drops an element after a while, whatever becomes of the agent.
func (s openSet) set(t *nftables.Table, most time.Duration) *nftables.Set {
	return &nftables.Set{Table: t, Name: s.name, KeyType: s.typ, Concatenation: true, HasTimeout: true, Timeout: most}
}

func (s openSet) of(c Connection) bool {
	return c.Local.Addr().Is4() == (s.family == unix.NFPROTO_IPV4)
}

func (s openSet) key(c Connection) []byte {
	var b []byte
	for _, end := range []netip.AddrPort{c.Local, c.Remote} {
		b = append(append(b, end.Addr().AsSlice()...), byte(end.Port()>>8), byte(end.Port()), 0, 0)
	}
	return b
}

func (s openSet) connection(key []byte) (c Connection, ok bool) {
	half := int(s.length) + 4
	if len(key) != 2*half {
		return c, false
	}
	end := func(b []byte) netip.AddrPort {
		a, _ := netip.AddrFromSlice(b[:s.length])
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[s.length:]))
	}
	return Connection{Local: end(key[:half]), Remote: end(key[half:])}, true
}

// wasOpen: the packet belongs to a connection that was open before capture and is not a SYN.
func (s openSet) wasOpen(outward bool) rule {
	local, remote, localPort, remotePort := s.source, s.destination, uint32(0), uint32(2)
	if !outward {
		local, remote, localPort, remotePort = s.destination, s.source, 2, 0
	}
	header, transport := expr.PayloadBaseNetworkHeader, expr.PayloadBaseTransportHeader
	return when(
		equal(&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, []byte{s.family}), tcp(), notSYN(),
		rule{
			&expr.Payload{DestRegister: s.registers[0], Base: header, Offset: local, Len: s.length},
			&expr.Payload{DestRegister: s.registers[1], Base: transport, Offset: localPort, Len: 2},
			&expr.Payload{DestRegister: s.registers[2], Base: header, Offset: remote, Len: s.length},
			&expr.Payload{DestRegister: s.registers[3], Base: transport, Offset: remotePort, Len: 2},
			&expr.Lookup{SourceRegister: s.registers[0], SetName: s.name},
		})
}

// notSYN: the TCP segment has no SYN flag.
func notSYN() rule {
	return maskedEqual(&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		[]byte{2},
		[]byte{0})
}

// leaveOpen returns the rules that give packets of such connections their own verdict; none when there are no such
// connections.
func (r Rules) leaveOpen(outward bool, verdict func() rule) []rule {
	var rules []rule
	if !r.open {
		return nil
	}
	for _, s := range openSets {
		rules = append(rules, when(s.wasOpen(outward), verdict()))
	}
	return rules
}

// addOpen adds the sets, with the connections that go on, to a table that is being made.
func addOpen(c *nftables.Conn, t *nftables.Table, open []Connection, most time.Duration) error {
	if len(open) == 0 {
		return nil
	}
	for _, s := range openSets {
		set := s.set(t, max(most, time.Second))
		if err := c.AddSet(set, nil); err != nil {
			return err
		}
		var elements []nftables.SetElement
		for _, o := range open {
			if s.of(o) {
				elements = append(elements, nftables.SetElement{Key: s.key(o)})
			}
		}
		for some := range slices.Chunk(elements, openBatch) {
			if err := c.SetAddElements(set, some); err != nil {
				return err
			}
		}
	}
	return nil
}

// leftOpen reports whether the namespace is captured, and which connections the rules leave alone.
func leftOpen(c *nftables.Conn) (captured bool, open []Connection, err error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, nil, err
	}
	at := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == Table })
	if at < 0 {
		return false, nil, nil
	}
	sets, err := c.GetSets(tables[at])
	if err != nil {
		return true, nil, err
	}
	for _, there := range sets {
		for _, s := range openSets {
			if there.Name != s.name {
				continue
			}
			elements, err := c.GetSetElements(there)
			if err != nil {
				return true, nil, err
			}
			for _, e := range elements {
				if o, ok := s.connection(e.Key); ok {
					open = append(open, o)
				}
			}
		}
	}
	return true, open, nil
}

// firstOpen returns the connections that go on past Envoy: those that are open when the namespace is captured for the
// first time, and later what is left of them.
func (r Rules) firstOpen(path string) (open []Connection, err error) {
	captured := false
	err = transact(path, func(c *nftables.Conn) (err error) {
		captured, open, err = leftOpen(c)
		return err
	})
	if err == nil && !captured && r.LeaveOpen > 0 {
		open, err = connections(path)
	}
	if err != nil {
		return nil, fmt.Errorf("look for the connections that are open in %s: %w", path, err)
	}
	return open, nil
}

// OpenConnections returns the connections that were open when the namespace at path was captured, still are, and may go
// on. One that may not, or that has ended, is no exception any longer.
func OpenConnections(path string, may func(Connection) bool) (open []Connection, err error) {
	err = transact(path, func(c *nftables.Conn) error {
		_, known, err := leftOpen(c)
		if err != nil || len(known) == 0 {
			return err
		}
		all, err := connections(path)
		if err != nil {
			return err
		}
		alive := map[Connection]bool{}
		for _, o := range all {
			alive[o] = may(o)
		}
		open = slices.DeleteFunc(slices.Clone(known), func(o Connection) bool { return !alive[o] })
		for _, s := range openSets {
			var over []nftables.SetElement
			for _, o := range known {
				if s.of(o) && !alive[o] {
					over = append(over, nftables.SetElement{Key: s.key(o)})
				}
			}
			for some := range slices.Chunk(over, openBatch) {
				t := &nftables.Table{Family: nftables.TableFamilyINet, Name: Table}
				if err := c.SetDeleteElements(s.set(t, 0), some); err != nil {
					return err
				}
			}
		}
		return nil
	})
	slices.SortFunc(open, compareConnections)
	return open, err
}

func compareConnections(a, b Connection) int {
	if n := a.Local.Compare(b.Local); n != 0 {
		return n
	}
	return a.Remote.Compare(b.Remote)
}

// The states of TCP in which a connection carries something, and begins no more (include/net/tcp_states.h).
const carrying = 1<<1 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11

// connections returns the connections of the namespace at path with somebody outside it.
func connections(path string) ([]Connection, error) {
	var out []Connection
	err := dump(path, carrying, func(b []byte) error {
		c := Connection{Local: endOf(b, 4, 8), Remote: endOf(b, 6, 24)}
		if !c.Local.Addr().IsLoopback() {
			out = append(out, c)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	inside := map[Connection]bool{}
	for _, c := range out {
		inside[Connection{Local: c.Remote, Remote: c.Local}] = true
	}
	out = slices.DeleteFunc(out, func(c Connection) bool { return inside[c] })
	return out[:min(len(out), mostOpen)], nil
}

// endOf reads a port and an address of struct inet_diag_msg.
func endOf(b []byte, port, address int) netip.AddrPort {
	addr := netip.AddrFrom4([4]byte(b[address:]))
	if b[0] == unix.AF_INET6 {
		addr = netip.AddrFrom16([16]byte(b[address:])).Unmap()
	}
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[port:]))
}

// dump has each TCP socket in the namespace at path, in one of the states, read (struct inet_diag_msg, sock_diag(7)).
func dump(path string, states uint32, read func([]byte) error) error {
	ns, err := netns.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	c, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, &netlink.Config{NetNS: int(ns.Fd())})
	if err != nil {
		return fmt.Errorf("ask for the sockets in %s: %w", path, err)
	}
	defer c.Close()
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, requestSize)
		request[0], request[1] = family, unix.IPPROTO_TCP
		copy(request[4:], binaryutil.NativeEndian.PutUint32(states))
		answers, err := c.Execute(netlink.Message{
			Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump}, Data: request,
		})
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil // a kernel that does not tell
		}
		if err != nil {
			return fmt.Errorf("ask for the sockets in %s: %w", path, err)
		}
		for _, a := range answers {
			if len(a.Data) < answerSize {
				continue
			}
			if err := read(bytes.Clone(a.Data)); err != nil {
				return err
			}
		}
	}
	return nil
}
