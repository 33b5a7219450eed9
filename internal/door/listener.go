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

// Time limits for unauthenticated callers.
const (
	handshakeTime = 5 * time.Second
	strangerLife  = 10 * time.Second
	acceptRetry   = 50 * time.Millisecond
)

// ListenerConfig configures a Listener.
type ListenerConfig struct {
	Listener net.Listener
	Prove    Proof
	Budget   *Budget
	// Proven reports whether a caller's connection may stay open. Other callers get answers, but their connections end
	// soon. If nil, so do those of strangers only.
	Proven func(Caller) bool
	// Life is the maximum duration of a stranger's connection. Default 10 s.
	Life time.Duration
	// Opened is called for each connection that stays, with a function that ends it. The returned function is called
	// when the connection has ended.
	Opened func(c Caller, end func()) (closed func())
	Log    *slog.Logger
}

// Listener accepts connections within a Budget and returns those whose caller is known.
type Listener struct {
	ListenerConfig
	ready  chan net.Conn
	closed chan struct{}
	close  sync.Once
}

// Listen wraps another listener. It accepts nothing before Run.
func Listen(c ListenerConfig) *Listener {
	if c.Life == 0 {
		c.Life = strangerLife
	}
	return &Listener{ListenerConfig: c, ready: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept returns the next connection with a known caller.
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

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.Listener.Addr() }

// Run accepts connections until ctx is done or the listener is closed.
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
		case err != nil: // out of file descriptors, or the client has gone
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

// room enters a connection into the budget, waiting for a slot if all are held by connections that have just arrived.
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

// conn is a counted connection.
type conn struct {
	net.Conn
	budget *Budget
	net    netip.Addr
	caller Caller // set before Accept returns the connection

	// Guarded by budget.mu.
	began time.Time
	place *list.Element // among the unauthenticated ones
	key   string        // the caller that it counts towards, once authenticated

	mu     sync.Mutex // guards the fields below
	closed bool
	after  []func()
}

// syscallConn is a connection with a file descriptor.
type syscallConn interface {
	SyscallConn() (syscall.RawConn, error)
}

// SyscallConn implements syscall.Conn.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	raw, ok := c.Conn.(syscallConn)
	if !ok {
		return nil, errors.New("it is no connection of the kernel's")
	}
	return raw.SyscallConn()
}

// onClose registers f to be called when the connection is closed.
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

// Close closes the connection and removes it from the budget.
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
		return netip.Addr{} // Unix sockets all count as one address
	}
	return network(from.Addr())
}

// callerOf returns the caller of a Listener's connection.
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

// ConnContext is for http.Server. It puts the caller into each request's context for OfConnection.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if caller, ok := callerOf(c); ok {
		return With(ctx, caller)
	}
	return ctx
}

// OfConnection returns the caller of a request. The server needs ConnContext.
func OfConnection(r *http.Request) (Caller, error) { return Of(r.Context()) }
