// Package vip chooses virtual addresses: at which address the callers of a service host reach it. It only chooses; the
// state keeps what was chosen.
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

// Range is where virtual addresses come from (RFC 1112 class E: nobody routes it).
var Range = netip.MustParsePrefix("240.240.0.0/16")

// Range6 is where virtual IPv6 addresses lie: in the discard prefix (RFC 6666), which is routed nowhere and is nobody's
// own.
var Range6 = netip.MustParsePrefix("100::/96")

// Six is the virtual IPv6 address beside a virtual IPv4 one, which stands in its last 32 bits: who has the one has the
// other.
func Six(four netip.Addr) netip.Addr {
	if !four.Is4() {
		return netip.Addr{}
	}
	b, low := Range6.Addr().As16(), four.As4()
	copy(b[12:], low[:])
	return netip.AddrFrom16(b)
}

// Refusal answers names that a workload may not call. It lies in the part of Range that no host gets.
var Refusal = netip.MustParseAddr("240.240.0.1")

// Refusal6 does so for IPv6.
var Refusal6 = Six(Refusal)

const (
	// reserved addresses at the beginning of Range are never given to a host: the mesh has uses of its own for them.
	reserved = 256
	// size is how many addresses may be given out; not the last one, where IPv4 may broadcast.
	size = 1<<16 - reserved - 1

	// PerNamespace bounds the addresses of one namespace, those of hosts that are gone included, so that no namespace
	// can use the range up.
	PerNamespace = 8192
	// Rest is how long the address of a host that is gone is kept from other namespaces: callers may remember it for a
	// while.
	Rest = 2 * time.Minute
)

// Host needs an address.
type Host struct{ Name, Namespace string }

// Row is the address of one host. It stays the host's after the host is gone, until another needs it.
type Row struct {
	Host
	Addr netip.Addr
	Gone time.Time // since when nobody writes this host; zero while somebody does
}

// Change is what has to be kept of a choice: first Drop these hosts, then Put these rows.
type Change struct {
	Drop []string
	Put  []Row
}

// Empty says that there is nothing to keep.
func (c Change) Empty() bool { return len(c.Drop)+len(c.Put) == 0 }

// Table says who has which address. It is immutable.
type Table struct {
	rows  map[string]Row // by host
	inUse map[string]netip.Addr
}

// TableOf makes a table of rows. A row outside Range, or at an address that another one has, is left out: its host gets
// a new one.
func TableOf(rows []Row) *Table {
	t := &Table{rows: make(map[string]Row, len(rows))}
	var taken set
	for _, r := range rows {
		if n, ok := place(r.Addr); ok && !taken.has(n) {
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

// InUse are the addresses of the hosts that somebody writes. Do not change it.
func (t *Table) InUse() map[string]netip.Addr { return t.inUse }

// Addresses are those of some hosts, as far as they have one.
func (t *Table) Addresses(hosts []Host) map[string]netip.Addr {
	out := make(map[string]netip.Addr, len(hosts))
	for _, h := range hosts {
		if r, has := t.rows[h.Name]; has {
			out[h.Name] = r.Addr
		}
	}
	return out
}

// With is the table after a change.
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

// Choose finds an address for each of the hosts, the first of them first, and says which get none. A host keeps the
// address that it has or had. A new one gets a free address, at a place that depends on its name, so that a mesh begun
// anew gives out mostly the same. A namespace at its bound gives its own gone hosts' addresses away, the one gone for
// longest first; when the range is used up, those of other namespaces' hosts follow once they have rested.
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

// chooser carries one choice.
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

// all are the rows as they will be, but for hosts that are new.
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
		n, _ := place(r.Addr)
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
			n := c.taken.next(start(h.Name))
			c.taken.add(n)
			c.held[h.Namespace]++
			c.used++
			c.put(Row{Host: h, Addr: nth(n)})
			continue
		}
		var from *Row
		for list := own[h.Namespace]; len(list) > 0 && from == nil; list = own[h.Namespace] {
			if own[h.Namespace] = list[1:]; !given[list[0].Name] {
				from = &list[0]
			}
		}
		for from == nil && c.held[h.Namespace] < PerNamespace && len(gone) > 0 && c.now.Sub(gone[0].Gone) >= Rest {
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

// start is the place at which a host's search for a free address begins.
func start(host string) int {
	h := fnv.New64a()
	h.Write([]byte(host))
	return int(h.Sum64() % size)
}

// nth is the address at a place, and place is its reverse.
func nth(n int) netip.Addr {
	b := Range.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+reserved+uint32(n))
	return netip.AddrFrom4(b)
}

func place(a netip.Addr) (int, bool) {
	if !a.Is4() || !Range.Contains(a) {
		return 0, false
	}
	b := a.As4()
	n := int(binary.BigEndian.Uint16(b[2:])) - reserved
	return n, n >= 0 && n < size
}

// set of places.
type set [size/64 + 1]uint64

func (s *set) has(n int) bool { return s[n/64]&(1<<(n%64)) != 0 }
func (s *set) add(n int)      { s[n/64] |= 1 << (n % 64) }

// next is the first place at or after n, or else from the beginning, that is not in the set. There must be one.
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
