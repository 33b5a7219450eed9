package door

import (
	"container/list"
	"maps"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// handshakeGrace is how long a connection may take to authenticate before it can be evicted for another.
const handshakeGrace = 500 * time.Millisecond

// Limits bound the number of open connections.
type Limits struct {
	Unproven   int // not authenticated (yet)
	PerAddress int // of these, from one address
	Proven     int // authenticated
	Admins     int // of these, reserved for administrators
	PerCaller  int // of one node or administrator
	PerGateway int // of one gateway or scraper
}

// reservedFiles are file descriptors for the state, the configuration folder, the local socket, other ports and
// outgoing connections.
const reservedFiles = 512

// LimitsFor divides the file descriptors that the process may open.
func LimitsFor(files int) Limits {
	free := files - min(reservedFiles, files/2)
	l := Limits{Unproven: max(8, min(1024, free/3)), PerCaller: 16, PerGateway: 128}
	l.PerAddress = max(4, l.Unproven/2)
	l.Proven = max(8, free-l.Unproven)
	l.Admins = min(32, l.Proven/4)
	return l
}

// OpenFiles returns how many files this process may open. The Go runtime has already raised the soft limit to the hard
// one.
func OpenFiles() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return 1024
	}
	return int(min(l.Cur, 1<<20))
}

// Budget counts open connections. All listeners that are reachable from outside share one.
type Budget struct {
	limits Limits

	mu        sync.Mutex // guards the fields below
	waiting   *list.List // *conn that are not authenticated, oldest first
	addresses map[netip.Addr]int
	proven    int
	admins    int // of the proven ones
	callers   map[string]int
	turned    map[string]uint64 // connections turned away, by reason
	freed     chan struct{}
}

// NewBudget returns a budget with the given limits.
func NewBudget(l Limits) *Budget {
	return &Budget{
		limits: l, waiting: list.New(), addresses: map[netip.Addr]int{}, callers: map[string]int{},
		turned: map[string]uint64{"address": 0, "slow": 0, "caller": 0},
		freed:  make(chan struct{}, 1),
	}
}

// enter admits an unauthenticated connection. If there is no room, it evicts the oldest one that has had enough time.
// If it cannot, ok is false: try again after wait, or give up if wait is 0, because this address has too many.
func (b *Budget) enter(c *conn, now time.Time) (ok bool, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// local addresses do not tell callers apart
	if b.addresses[c.net] >= b.limits.PerAddress && !c.net.IsLoopback() {
		old := b.oldest(func(o *conn) bool { return o.net == c.net })
		if now.Sub(old.began) < handshakeGrace {
			b.turned["address"]++
			return false, 0
		}
		b.evict(old)
	}
	if b.waiting.Len() >= b.limits.Unproven {
		old := b.oldest(func(*conn) bool { return true })
		if age := now.Sub(old.began); age < handshakeGrace {
			return false, handshakeGrace - age
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
	return nil // cannot happen: the caller has entered one
}

// evict closes a connection to make room. The caller holds mu.
func (b *Budget) evict(c *conn) {
	b.turned["slow"]++
	b.forget(c)
	c.Conn.Close() // the reader of the connection closes c
}

// prove moves a connection to the authenticated ones. It returns false if the caller has too many.
func (b *Budget) prove(c *conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.place == nil {
		return false // it was just evicted
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

// leave removes a connection.
func (b *Budget) leave(c *conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(c)
	if c.key != "" {
		b.count(c, -1)
		c.key = ""
	}
}

// count adds n to the counters of an authenticated connection. The caller holds mu.
func (b *Budget) count(c *conn, n int) {
	b.proven += n
	if c.caller.Kind == Administrator {
		b.admins += n
	}
	if b.callers[c.key] += n; b.callers[c.key] == 0 {
		delete(b.callers, c.key)
	}
}

// forget removes a connection from the unauthenticated ones. The caller holds mu.
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

// Open returns the number of open connections, without and with authentication.
func (b *Budget) Open() (unproven, proven int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.waiting.Len(), b.proven
}

// Turned returns the number of connections turned away, by reason. "address": too many unauthenticated ones from one
// address. "slow": evicted to make room. "caller": too many authenticated ones of the caller, or in total.
func (b *Budget) Turned() map[string]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.turned)
}
