// Package vip chooses the virtual address at which callers reach a service host. The state stores the choices.
package vip

import (
	"cmp"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"time"
)

// Range is the block of virtual IPv4 addresses (RFC 1112 class E, not routed anywhere).
var Range = netip.MustParsePrefix("240.240.0.0/16")

// Range6 is the block of virtual IPv6 addresses, in the discard prefix (RFC 6666), which is not routed and belongs to
// nobody.
var Range6 = netip.MustParsePrefix("100::/96")

// Six returns the virtual IPv6 address that corresponds to a virtual IPv4 address; its last 32 bits are that address.
func Six(four netip.Addr) netip.Addr {
	if !four.Is4() {
		return netip.Addr{}
	}
	b, low := Range6.Addr().As16(), four.As4()
	copy(b[12:], low[:])
	return netip.AddrFrom16(b)
}

// Refusal is the DNS answer for names that a workload may not call. No host gets it.
var Refusal = netip.MustParseAddr("240.240.0.1")

// Refusal6 is the IPv6 counterpart.
var Refusal6 = Six(Refusal)

const (
	// reserved addresses at the start of Range are for the mesh itself.
	reserved = 256
	// size is the number of addresses for hosts. The last address of Range is excluded: it may be a broadcast address.
	size = 1<<16 - reserved - 1

	// PerNamespace limits the addresses of one namespace, including those of removed hosts, so that no namespace can
	// exhaust the range.
	PerNamespace = 8192
	// ReuseDelay is how long a removed host's address is kept from other namespaces, since callers may have cached it.
	ReuseDelay = 2 * time.Minute
)

// Host is a service host that needs an address.
type Host struct{ Name, Namespace string }

// Row is the address of one host. A removed host keeps its address until another host needs it.
type Row struct {
	Host
	Addr netip.Addr
	Gone time.Time // when the host was removed; zero while it exists
}

// Change is what must be stored after a choice: drop these hosts, then put these rows.
type Change struct {
	Drop []string
	Put  []Row
}

// Empty reports whether there is nothing to store.
func (c Change) Empty() bool { return len(c.Drop)+len(c.Put) == 0 }

// Table maps hosts to addresses. It is immutable.
type Table struct {
	rows  map[string]Row // by host
	inUse map[string]netip.Addr
}

// TableOf builds a table from rows. It skips rows outside Range and duplicate addresses; their hosts get new addresses.
func TableOf(rows []Row) *Table {
	t := &Table{rows: make(map[string]Row, len(rows))}
	var taken set
	for _, r := range rows {
		if n, ok := indexOf(r.Addr); ok && !taken.has(n) {
			taken.add(n)
			t.rows[r.Name] = r
		}
	}
	return t.counted()
}

func (t *Table) counted() *Table {
	t.inUse = make(map[string]netip.Addr, len(t.rows))
	for host, r := range t.rows {
		if r.Gone.IsZero() {
			t.inUse[host] = r.Addr
		}
	}
	return t
}

// InUse returns the addresses of existing hosts. The map is shared and must not be modified.
func (t *Table) InUse() map[string]netip.Addr { return t.inUse }

// Addresses returns the addresses of those hosts that have one.
func (t *Table) Addresses(hosts []Host) map[string]netip.Addr {
	out := make(map[string]netip.Addr, len(hosts))
	for _, h := range hosts {
		if r, has := t.rows[h.Name]; has {
			out[h.Name] = r.Addr
		}
	}
	return out
}

// With returns the table after a change.
func (t *Table) With(c Change) *Table {
	next := &Table{rows: maps.Clone(t.rows)}
	for _, h := range c.Drop {
		delete(next.rows, h)
	}
	for _, r := range c.Put {
		next.rows[r.Name] = r
	}
	return next.counted()
}

// Choose assigns an address to each host, in order, and returns the hosts that got none. A host keeps its present or
// former address. A new host gets a free address that depends on its name, so that a rebuilt mesh assigns mostly the
// same ones. A namespace at its limit reuses the addresses of its own removed hosts, the longest removed first. When
// the range is exhausted, addresses of other namespaces' removed hosts are reused after ReuseDelay.
func (t *Table) Choose(hosts []Host, now time.Time) (Change, []Host) {
	c := newChooser(t, now)
	var fresh []Host
	wanted := make(map[string]bool, len(hosts))
	for _, h := range hosts {
		if wanted[h.Name] {
			continue
		}
		wanted[h.Name] = true
		if r, has := t.rows[h.Name]; !has {
			fresh = append(fresh, h)
		} else if r.Host != h || !r.Gone.IsZero() {
			c.put(Row{Host: h, Addr: r.Addr})
		}
	}
	for name, r := range t.rows {
		if !wanted[name] && r.Gone.IsZero() {
			r.Gone = now
			c.put(r)
		}
	}
	left := c.give(fresh)
	return c.change(), left
}

// chooser is the working state of Choose.
type chooser struct {
	now   time.Time
	rows  map[string]Row
	puts  map[string]Row
	drops []string
	taken set
	held  map[string]int // by namespace
	used  int
}

func newChooser(t *Table, now time.Time) *chooser {
	return &chooser{now: now, rows: t.rows, puts: map[string]Row{}, held: map[string]int{}}
}

func (c *chooser) put(r Row) { c.puts[r.Name] = r }

// all returns the rows after the pending puts.
func (c *chooser) all() []Row {
	out := make([]Row, 0, len(c.rows))
	for name, r := range c.rows {
		if p, changed := c.puts[name]; changed {
			r = p
		}
		out = append(out, r)
	}
	return out
}

func (c *chooser) give(fresh []Host) (left []Host) {
	if len(fresh) == 0 {
		return nil
	}
	var gone []Row
	for _, r := range c.all() {
		n, _ := indexOf(r.Addr)
		c.taken.add(n)
		c.held[r.Namespace]++
		c.used++
		if !r.Gone.IsZero() {
			gone = append(gone, r)
		}
	}
	slices.SortFunc(gone, func(a, b Row) int { return cmp.Or(a.Gone.Compare(b.Gone), cmp.Compare(a.Name, b.Name)) })
	own := map[string][]Row{}
	for _, r := range gone {
		own[r.Namespace] = append(own[r.Namespace], r)
	}
	given := map[string]bool{}
	for _, h := range fresh {
		if c.held[h.Namespace] < PerNamespace && c.used < size {
			n := c.taken.next(firstTry(h.Name))
			c.taken.add(n)
			c.held[h.Namespace]++
			c.used++
			c.put(Row{Host: h, Addr: addrAt(n)})
			continue
		}
		var from *Row
		for list := own[h.Namespace]; len(list) > 0 && from == nil; list = own[h.Namespace] {
			if own[h.Namespace] = list[1:]; !given[list[0].Name] {
				from = &list[0]
			}
		}
		for from == nil && c.held[h.Namespace] < PerNamespace && len(gone) > 0 &&
			c.now.Sub(gone[0].Gone) >= ReuseDelay {
			if !given[gone[0].Name] {
				from = &gone[0]
			}
			gone = gone[1:]
		}
		if from == nil {
			left = append(left, h)
			continue
		}
		given[from.Name] = true
		c.held[from.Namespace]--
		c.held[h.Namespace]++
		delete(c.puts, from.Name)
		c.drops = append(c.drops, from.Name)
		c.put(Row{Host: h, Addr: from.Addr})
	}
	return left
}

func (c *chooser) change() Change {
	slices.Sort(c.drops)
	out := Change{Drop: c.drops}
	for _, name := range slices.Sorted(maps.Keys(c.puts)) {
		out.Put = append(out.Put, c.puts[name])
	}
	return out
}

// firstTry returns the index where the search for a host's address begins.
func firstTry(host string) int {
	h := fnv.New64a()
	h.Write([]byte(host))
	return int(h.Sum64() % size)
}

// addrAt returns the address of an index. indexOf is its inverse.
func addrAt(n int) netip.Addr {
	b := Range.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+reserved+uint32(n))
	return netip.AddrFrom4(b)
}

func indexOf(a netip.Addr) (int, bool) {
	if !a.Is4() || !Range.Contains(a) {
		return 0, false
	}
	b := a.As4()
	n := int(binary.BigEndian.Uint16(b[2:])) - reserved
	return n, n >= 0 && n < size
}

// set is a bitmap of address indices.
type set [size/64 + 1]uint64

func (s *set) has(n int) bool { return s[n/64]&(1<<(n%64)) != 0 }
func (s *set) add(n int)      { s[n/64] |= 1 << (n % 64) }

// next returns the first index at or after n, wrapping around, that is not in the set. There must be one.
func (s *set) next(n int) int {
	for at := n; ; {
		word := ^s[at/64] >> (at % 64)
		if free := at + bits.TrailingZeros64(word); word != 0 && free < size {
			return free
		}
		if at = (at/64 + 1) * 64; at >= size {
			at = 0
		}
	}
}
