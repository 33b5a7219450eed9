package federation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/wellknown"
)

const (
	// idleTimeout limits the time between requests on a gateway's connection.
	idleTimeout = 2 * time.Minute
	// greetTimeout limits the TLS handshake of a new connection, greetings the number of concurrent handshakes.
	greetTimeout = 5 * time.Second
	greetings    = 256
	stopPatience = 2 * time.Second
	acceptPause  = 50 * time.Millisecond // after a failed accept
)

// Serve serves only this mesh's gateways, on a TLS listener that verifies client certificates. Connections with
// PeeringProtocol carry the TLS of a peer's control plane; all others are probes.
func (s *Service) Serve(ctx context.Context, l net.Listener) error {
	peers, probes := newQueue(l.Addr()), newQueue(l.Addr())
	defer context.AfterFunc(ctx, func() { l.Close() })()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.serveHTTP(ctx, s.peerHandler(), peers) })
	g.Go(func() error { return s.serveHTTP(ctx, s.probeHandler(), probes) })
	g.Go(func() error { return s.acceptGateways(ctx, l, peers, probes) })
	return g.Wait()
}

func (s *Service) acceptGateways(ctx context.Context, l net.Listener, peers, probes *queue) error {
	var greeted sync.WaitGroup
	defer greeted.Wait()
	places := make(chan struct{}, greetings)
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			if conn != nil {
				conn.Close()
			}
			return ctx.Err()
		case err != nil: // out of file descriptors, for example
			s.Log.Error("peering connection not accepted", "error", err)
			time.Sleep(acceptPause)
			continue
		}
		select {
		case places <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		greeted.Go(func() {
			defer func() { <-places }()
			s.handshake(ctx, conn, peers, probes)
		})
	}
}

// handshake completes the handshake with a gateway and queues its connection.
func (s *Service) handshake(ctx context.Context, raw net.Conn, peers, probes *queue) {
	greeting, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	conn, ok := raw.(*tls.Conn)
	if !ok {
		s.Log.Error("peering connection without TLS", "type", fmt.Sprintf("%T", raw))
		raw.Close()
		return
	}
	err := conn.HandshakeContext(greeting)
	if err == nil {
		err = s.fromGateway(greeting, conn.RemoteAddr().String(), conn.ConnectionState())
	}
	switch {
	case err != nil:
		s.recordStranger(ctx, state.Event{
			From: host(conn.RemoteAddr().String()), Action: "peering", Detail: err.Error(),
		})
		conn.Close()
	case conn.ConnectionState().NegotiatedProtocol == wellknown.PeeringProtocol:
		peers.put(ctx, tls.Server(conn, s.serverTLS()))
	default:
		probes.put(ctx, conn)
	}
}

// serveHTTP serves with timeouts against slow senders.
func (s *Service) serveHTTP(ctx context.Context, h http.Handler, l net.Listener) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: min(s.ReadTimeout, greetTimeout), ReadTimeout: s.ReadTimeout,
		WriteTimeout: 2 * s.ReadTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		patience, cancel := context.WithTimeout(context.Background(), stopPatience)
		defer cancel()
		if server.Shutdown(patience) != nil {
			server.Close()
		}
	})
	defer func() {
		if !stop() {
			<-stopped // requests in progress may still use the state
		}
	}()
	if err := server.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serve peers at %s: %w", l.Addr(), err)
	}
	return nil
}

// queue is a net.Listener of connections that were accepted elsewhere.
type queue struct {
	addr  net.Addr
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newQueue(addr net.Addr) *queue {
	return &queue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *queue) put(ctx context.Context, c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		c.Close()
	case <-ctx.Done():
		c.Close()
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return q.addr }
