package door

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"isthmus.dev/isthmus/internal/waittest"
)

// wire is a listener without a network: dial says where from.
type wire struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	dialed []net.Conn
}

func newWire() *wire { return &wire{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error {
	w.once.Do(func() { close(w.closed) })
	return nil
}
func (w *wire) Addr() net.Addr { return &net.TCPAddr{} }

type pipeConn struct {
	net.Conn
	from net.Addr
}

func (c pipeConn) RemoteAddr() net.Addr { return c.from }

func (w *wire) dial(from string) net.Conn {
	a, b := net.Pipe()
	w.dialed = append(w.dialed, a)
	w.conns <- pipeConn{b, net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 1234))}
	return a
}

// byWord is a proof that waits for a line: who the caller is.
func byWord(ctx context.Context, raw net.Conn) (net.Conn, Caller, error) {
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	line := make([]byte, 32)
	n, err := raw.Read(line)
	if err != nil {
		return nil, Caller{}, err
	}
	from := netip.MustParseAddrPort(raw.RemoteAddr().String()).Addr()
	kind, name, _ := strings.Cut(string(line[:n]), " ")
	switch kind {
	case "node":
		return raw, Caller{Kind: Node, Name: name, Addr: from}, nil
	case "admin":
		return raw, Caller{Kind: Administrator, Name: name, Addr: from}, nil
	case "nobody":
		return raw, Caller{Kind: Stranger, Addr: from}, nil
	}
	return nil, Caller{}, errors.New("it proves nothing")
}

// listening runs a Listener and collects what it hands on.
type listening struct {
	*wire
	l  *Listener
	mu sync.Mutex // guards got
	in []string
}

func listen(t *testing.T, limits Limits) *listening {
	t.Helper()
	w := newWire()
	x := &listening{wire: w, l: Listen(ListenerConfig{
		Listener: w, Prove: byWord, Budget: NewBudget(limits), Log: slog.New(slog.DiscardHandler),
		Proven: func(c Caller) bool { return c.Kind&(Node|Administrator) != 0 },
	})}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { x.l.Run(ctx) })
	wg.Go(func() {
		for {
			c, err := x.l.Accept()
			if err != nil {
				return
			}
			x.mu.Lock()
			caller, _ := callerOf(c)
			x.in = append(x.in, caller.Actor())
			x.mu.Unlock()
			wg.Go(func() { // a server reads until the end
				io.Copy(io.Discard, c)
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		for _, c := range w.dialed {
			c.Close()
		}
		wg.Wait()
	})
	return x
}

// open says whether this end still is connected.
func open(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func count(conns []net.Conn) (n int) {
	for _, c := range conns {
		if open(c) {
			n++
		}
	}
	return n
}

func (x *listening) want(t *testing.T, unproven, proven int) {
	t.Helper()
	if u, p := x.l.Budget.Open(); u != unproven || p != proven {
		t.Errorf("%d unproven and %d proven are counted, want %d and %d", u, p, unproven, proven)
	}
}

var few = Limits{Unproven: 8, PerAddress: 4, Proven: 6, Admins: 2, PerCaller: 3}

// Who connects and proves nothing is bounded in all and by address, does not last, and keeps nobody out.
func TestUnprovenConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := listen(t, few)
		var idle []net.Conn
		for range 10 {
			idle = append(idle, x.dial("2001:db8:1:2::1"), x.dial("2001:db8:1:2::2")) // one network
		}
		synctest.Wait()
		if n := count(idle); n != 4 {
			t.Errorf("%d connections of one network, want 4", n)
		}
		// Once they had their time, the next one takes the place of the oldest.
		waittest.Advance(500 * time.Millisecond)
		young := x.dial("2001:db8:1:2::1")
		synctest.Wait()
		if n := count(idle); n != 3 || !open(young) {
			t.Errorf("%d old ones are left, the new one is open: %t", n, open(young))
		}
		// Many addresses together fill the rest; whoever comes then waits a moment and is served.
		for i := range 4 {
			idle = append(idle, x.dial(fmt.Sprintf("192.0.2.%d", i+1)))
		}
		synctest.Wait()
		x.want(t, 8, 0)
		began := time.Now()
		node := x.dial("198.51.100.1")
		fmt.Fprint(node, "node n1")
		synctest.Wait()
		if took := time.Since(began); took > 500*time.Millisecond || !open(node) {
			t.Errorf("a node waited %s, and is connected: %t", took, open(node))
		}
		x.want(t, 7, 1)
		// In the end none of the idle ones is left.
		waittest.Advance(5 * time.Second)
		if n := count(idle); n != 0 || !open(node) {
			t.Errorf("%d idle ones are left; the node is connected: %t", n, open(node))
		}
		x.want(t, 0, 1)
	})
}

// A stranger may say what it has to say, but not stay.
func TestStrangersDoNotStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := listen(t, few)
		c := x.dial("192.0.2.1")
		fmt.Fprint(c, "nobody")
		waittest.Advance(9 * time.Second)
		if !open(c) {
			t.Error("closed early")
		}
		x.want(t, 1, 0)
		waittest.Advance(time.Second)
		if open(c) {
			t.Error("it stays")
		}
		x.want(t, 0, 0)
		if !slices.Equal(x.in, []string{"stranger"}) {
			t.Errorf("served: %v", x.in)
		}
	})
}

// Who is known has a share, and the last places are for administrators.
func TestProvenConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := listen(t, few)
		say := func(who string) net.Conn {
			c := x.dial("192.0.2.1")
			fmt.Fprint(c, who)
			synctest.Wait()
			return c
		}
		var n1, n2 []net.Conn
		for range 5 {
			n1 = append(n1, say("node n1"))
		}
		if n := count(n1); n != 3 {
			t.Errorf("one node has %d connections, want 3", n)
		}
		for range 5 {
			n2 = append(n2, say("node n2"))
		}
		if n := count(n2); n != 1 {
			t.Errorf("the next has %d, want 1: two places of the six are administrators'", n)
		}
		ada := say("admin ada")
		if !open(ada) {
			t.Error("an administrator is kept out")
		}
		x.want(t, 0, 5)
		n1[0].Close()
		synctest.Wait()
		x.want(t, 0, 4)
		if !open(say("node n1")) {
			t.Error("a place that was left is not given again")
		}
		if open(say("nonsense")) {
			t.Error("who proves nothing is connected")
		}
		x.want(t, 0, 5)
	})
}

// What the process may open is divided so that something is left for the rest of it.
func TestLimitsFor(t *testing.T) {
	for files, want := range map[int]Limits{
		1024:   {Unproven: 170, PerAddress: 85, Proven: 342, Admins: 32, PerCaller: 16, PerGateway: 128},
		4096:   {Unproven: 1024, PerAddress: 512, Proven: 2560, Admins: 32, PerCaller: 16, PerGateway: 128},
		65536:  {Unproven: 1024, PerAddress: 512, Proven: 64000, Admins: 32, PerCaller: 16, PerGateway: 128},
		256:    {Unproven: 42, PerAddress: 21, Proven: 86, Admins: 21, PerCaller: 16, PerGateway: 128},
		524288: {Unproven: 1024, PerAddress: 512, Proven: 522752, Admins: 32, PerCaller: 16, PerGateway: 128},
	} {
		if got := LimitsFor(files); got != want {
			t.Errorf("%d files: %+v, want %+v", files, got, want)
		}
		if l := LimitsFor(files); l.Unproven+l.Proven > files-min(512, files/2) {
			t.Errorf("%d files: nothing is left", files)
		}
	}
}
