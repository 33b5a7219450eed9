package door

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// How long strangers may take.
const (
	handshakeTime = 5 * time.Second
	strangerLife  = 10 * time.Second
	acceptRetry   = 50 * time.Millisecond
)

// Config describes a Listener.
type Config struct {
	Listener net.Listener
	Prove    Proof
	Budget   *Budget
	// Proven says who may stay. Others are answered, and their connections end soon; so are strangers' where it is nil.
	Proven func(Caller) bool
	// Life of a stranger's connection. Default 10 s.
	Life time.Duration
	// Opened is told of each connection that may stay, and how to end it; what it returns is called when it has ended.
	Opened func(c Caller, end func()) (closed func())
	Log    *slog.Logger
}

// Listener accepts connections within a Budget, and hands on those whose caller is known.
type Listener struct {
	Config
	ready  chan net.Conn
	closed chan struct{}
	close  sync.Once
}

// Listen makes a Listener of another. Nothing is accepted before Run.
func Listen(c Config) *Listener {
	if c.Life == 0 {
		c.Life = strangerLife
	}
	return &Listener{Config: c, ready: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept returns the next connection whose caller is known.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Run.
func (l *Listener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Addr returns where it listens.
func (l *Listener) Addr() net.Addr { return l.Listener.Addr() }

// Run accepts until ctx ends or the listener is closed.
func (l *Listener) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for {
		raw, err := l.Listener.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if raw != nil {
				raw.Close()
			}
			return nil
		case err != nil: // no more files, or the caller has gone
			l.Log.Debug("accept", "error", err)
			sleep(ctx, acceptRetry)
			continue
		}
		c := &conn{Conn: raw, budget: l.Budget, net: addressOf(raw)}
		if !l.room(ctx, c) {
			raw.Close()
			continue
		}
		all.Go(func() { l.prove(ctx, c) })
	}
}

// room counts a connection in, and waits for that where all places are taken by others who have just come.
func (l *Listener) room(ctx context.Context, c *conn) bool {
	for {
		ok, wait := l.Budget.enter(c, time.Now())
		if ok || wait == 0 {
			return ok
		}
		select {
		case <-ctx.Done():
			return false
		case <-l.Budget.freed:
		case <-time.After(wait):
		}
	}
}

func (l *Listener) prove(ctx context.Context, c *conn) {
	brief, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	served, caller, err := l.Prove(brief, c)
	if err != nil {
		l.Log.Debug("connection refused", "from", c.net, "error", err)
		c.Close()
		return
	}
	c.caller = caller
	if l.Proven == nil || !l.Proven(caller) {
		stop := time.AfterFunc(l.Life, func() { c.Close() })
		c.onClose(func() { stop.Stop() })
	} else if !l.Budget.prove(c) {
		l.Log.Warn("connection refused", "caller", caller.Actor(), "from", caller.From(),
			"error", "it has too many open, or there are too many in all")
		c.Close()
		return
	} else if l.Opened != nil {
		c.onClose(l.Opened(caller, func() { c.Close() }))
	}
	select {
	case l.ready <- served:
	case <-l.closed:
		c.Close()
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// conn is one connection that is counted.
type conn struct {
	net.Conn
	budget *Budget
	net    netip.Addr
	caller Caller // set before the connection is handed on

	// Guarded by budget.mu.
	began time.Time
	place *list.Element // among those that wait
	key   string        // whose share it counts to, once it is proven

	mu     sync.Mutex // guards all below
	closed bool
	after  []func()
}

// syscallConn is a connection of the kernel's.
type syscallConn interface {
	SyscallConn() (syscall.RawConn, error)
}

// SyscallConn returns the kernel's side of it.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	raw, ok := c.Conn.(syscallConn)
	if !ok {
		return nil, errors.New("it is no connection of the kernel's")
	}
	return raw.SyscallConn()
}

// onClose has f called once the connection is closed.
func (c *conn) onClose(f func()) {
	if f == nil {
		return
	}
	c.mu.Lock()
	closed := c.closed
	if !closed {
		c.after = append(c.after, f)
	}
	c.mu.Unlock()
	if closed {
		f()
	}
}

// Close the connection and count it out.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.budget.leave(c)
	c.mu.Lock()
	after := c.after
	c.after, c.closed = nil, true
	c.mu.Unlock()
	for _, f := range after {
		f()
	}
	return err
}

func addressOf(c net.Conn) netip.Addr {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{} // a Unix socket: all of these are one address
	}
	return network(from.Addr())
}

// callerOf returns whom a connection of a Listener is from.
func callerOf(c net.Conn) (Caller, bool) {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	own, ok := c.(*conn)
	if !ok {
		return Caller{}, false
	}
	return own.caller, true
}

// ConnContext is for http.Server: it puts the caller into the context of each request, where OfConnection finds it.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if caller, ok := callerOf(c); ok {
		return With(ctx, caller)
	}
	return ctx
}

// OfConnection returns whom the connection of a request is from. Its server needs ConnContext.
func OfConnection(r *http.Request) (Caller, error) { return Of(r.Context()) }
