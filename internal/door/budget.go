package door

import (
	"container/list"
	"maps"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// grace is how long a connection may take to prove itself before another may take its place.
const grace = 500 * time.Millisecond

// Limits are how many connections may be open at once.
type Limits struct {
	Unproven   int // of those who have proved nothing (yet)
	PerAddress int // of these, from one address
	Proven     int // of those who have
	Admins     int // of these, kept for administrators
	PerCaller  int // of one node or administrator
	PerGateway int // of one gateway or scraper
}

// reservedFiles are for the state, the configuration folder, the local socket, other ports and calls of our own.
const reservedFiles = 512

// LimitsFor divides the files that the process may open.
func LimitsFor(files int) Limits {
	free := files - min(reservedFiles, files/2)
	l := Limits{Unproven: max(8, min(1024, free/3)), PerCaller: 16, PerGateway: 128}
	l.PerAddress = max(4, l.Unproven/2)
	l.Proven = max(8, free-l.Unproven)
	l.Admins = min(32, l.Proven/4)
	return l
}

// OpenFiles returns how many files this process may open. Go has raised the soft limit to the hard one by now.
func OpenFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<20))
}

// Budget keeps count of open connections. All listeners that strangers reach share one.
type Budget struct {
	limits Limits

	mu        sync.Mutex // guards all below
	waiting   *list.List // of *conn that have not proved anything, the oldest first
	addresses map[netip.Addr]int
	proven    int
	admins    int // of these
	callers   map[string]int
	turned    map[string]uint64 // away, by why
	freed     chan struct{}
}

// NewBudget returns one within limits.
func NewBudget(l Limits) *Budget {
	return &Budget{
		limits: l, waiting: list.New(), addresses: map[netip.Addr]int{}, callers: map[string]int{},
		turned: map[string]uint64{"address": 0, "slow": 0, "caller": 0},
		freed:  make(chan struct{}, 1),
	}
}

// enter counts a connection in that has proved nothing yet. Where there is no room, the oldest that had time enough
// gives way; if there is none, wait says when there will be, or ok that there is no room for this address.
func (b *Budget) enter(c *conn, now time.Time) (ok bool, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// this host's address says nothing about who it is
	if b.addresses[c.net] >= b.limits.PerAddress && !c.net.IsLoopback() {
		old := b.oldest(func(o *conn) bool { return o.net == c.net })
		if now.Sub(old.began) < grace {
			b.turned["address"]++
			return false, 0
		}
		b.evict(old)
	}
	if b.waiting.Len() >= b.limits.Unproven {
		old := b.oldest(func(*conn) bool { return true })
		if age := now.Sub(old.began); age < grace {
			return false, grace - age
		}
		b.evict(old)
	}
	c.began, c.place = now, b.waiting.PushBack(c)
	b.addresses[c.net]++
	return true, 0
}

func (b *Budget) oldest(is func(*conn) bool) *conn {
	for e := b.waiting.Front(); e != nil; e = e.Next() {
		if c := e.Value.(*conn); is(c) {
			return c
		}
	}
	return nil // cannot happen: who asks has counted one
}

// evict closes a connection for another's sake. The caller holds mu.
func (b *Budget) evict(c *conn) {
	b.turned["slow"]++
	b.forget(c)
	c.Conn.Close() // whoever reads from it closes c
}

// prove moves a connection to those whose callers are known; false when the caller has too many.
func (b *Budget) prove(c *conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.place == nil {
		return false // it gave way just now
	}
	mine := b.limits.PerCaller
	if c.caller.Kind == Workload {
		mine = b.limits.PerGateway
	}
	admin := c.caller.Kind == Administrator
	full := b.proven >= b.limits.Proven || !admin && b.proven-b.admins >= b.limits.Proven-b.limits.Admins
	key := c.caller.key()
	if full || b.callers[key] >= mine {
		b.turned["caller"]++
		return false
	}
	b.forget(c)
	c.key = key
	b.count(c, 1)
	return true
}

// leave counts a connection out.
func (b *Budget) leave(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(c)
	if c.key != "" {
		b.count(c, -1)
		c.key = ""
	}
}

// count counts a proven connection in or out. The caller holds mu.
func (b *Budget) count(c *conn, n int) {
	b.proven += n
	if c.caller.Kind == Administrator {
		b.admins += n
	}
	if b.callers[c.key] += n; b.callers[c.key] == 0 {
		delete(b.callers, c.key)
	}
}

// forget takes a connection out of those that wait. The caller holds mu.
func (b *Budget) forget(c *conn) {
	if c.place == nil {
		return
	}
	b.waiting.Remove(c.place)
	c.place = nil
	if b.addresses[c.net]--; b.addresses[c.net] <= 0 {
		delete(b.addresses, c.net)
	}
	select {
	case b.freed <- struct{}{}:
	default:
	}
}

// Open returns how many connections are open, without and with a proof.
func (b *Budget) Open() (unproven, proven int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting.Len(), b.proven
}

// Turned returns how many connections were turned away, by why: "address", too many of one that proved nothing; "slow",
// for the sake of others; "caller", too many of one that did, or of all.
func (b *Budget) Turned() map[string]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.turned)
}
