package workloadapi

import (
	"cmp"
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

var errTooMany = errors.New("the workload has too many connections open")

// listener accepts connections to one workload's socket and identifies the callers.
type listener struct {
	*net.UnixListener
	served *served
}

// Accept a connection.
func (l *listener) Accept() (net.Conn, error) {
	for {
		raw, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if c := l.served.admit(raw); c != nil {
			return c, nil
		}
	}
}

// conn is one connection and its caller.
type conn struct {
	*net.UnixConn
	served        *served
	caller        *caller // nil when it could not be found
	refuse        error   // why it is not served
	refusalLogged sync.Once
	once          sync.Once
	done          func()
}

// admit counts a connection, or closes it when there are too many. A stranger's connection lives just long enough to be
// refused.
func (w *served) admit(raw *net.UnixConn) *conn {
	c := &conn{UnixConn: raw, served: w}
	accepted, err := sinceBoot()
	if err == nil {
		c.caller, err = identify(raw, accepted)
	}
	if err == nil {
		err = c.caller.isOf(&w.Workload)
	}
	c.refuse = err
	count, most := &w.callers, int64(maxConnections)
	if err != nil {
		count, most = &w.strangers, maxRefused
	}
	c.done = func() { count.Add(-1) }
	if count.Add(1) > most {
		c.recordRefusal(cmp.Or(err, errTooMany))
		c.Close()
		return nil
	}
	if err != nil {
		time.AfterFunc(refusedLife, func() { c.Close() })
	}
	return c
}

// Close the connection.
func (c *conn) Close() (err error) {
	c.once.Do(func() {
		err = c.UnixConn.Close()
		if c.caller != nil {
			err = errors.Join(err, c.caller.proc.Close())
		}
		c.done()
	})
	return err
}

// recordRefusal counts and logs a refusal, once for a connection.
func (c *conn) recordRefusal(why error) {
	c.refusalLogged.Do(func() {
		w, s := c.served, c.served.server
		w.refused.Add(1)
		if !s.limit.Allow() {
			s.silenced.Add(1)
			return
		}
		attrs := []any{"workload", w.Name, "reason", why}
		if c.caller != nil {
			attrs = append(attrs, "pid", c.caller.pid, "user", c.caller.uid)
		}
		if n := s.silenced.Swap(0); n > 0 {
			attrs = append(attrs, "suppressed", n)
		}
		s.cfg.Log.Warn("Workload API refused", attrs...)
	})
}

// kernel is the gRPC transport security of these connections: the kernel identifies the caller.
type kernel struct{}

// authInfo leads from a call to its connection.
type authInfo struct{ conn *conn }

func (authInfo) AuthType() string { return "kernel" }

func (kernel) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*conn)
	if !ok {
		return nil, nil, errors.New("the connection did not come through the workload's listener")
	}
	return c, authInfo{c}, nil
}

func (kernel) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("this side only serves")
}

func (kernel) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "kernel"}
}
func (kernel) Clone() credentials.TransportCredentials       { return kernel{} }
func (kernel) OverrideServerName(string) (unsupported error) { return nil }

// connOf returns the connection of a call.
func connOf(ctx context.Context) *conn {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(authInfo); ok {
			return info.conn
		}
	}
	return nil
}
