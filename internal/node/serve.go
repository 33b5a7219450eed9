package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"isthmus.dev/isthmus/internal/unixsocket"
)

// maxHTTPConnections bounds the concurrent connections for health or metrics.
const maxHTTPConnections = 64

// listeners are the agent's own sockets; nil where disabled.
type listeners struct {
	health        net.Listener // plain HTTP
	metricsSocket net.Listener // Unix
	metrics       net.Listener // mutual TLS
}

func (l *listeners) all() []net.Listener {
	return []net.Listener{l.health, l.metricsSocket, l.metrics}
}

func (l *listeners) close() {
	for _, x := range l.all() {
		if x != nil {
			x.Close()
		}
	}
}

// closeListeners closes every socket of the agent.
func (a *Agent) closeListeners() {
	a.listeners.close()
	for _, h := range a.namespaces {
		h.leave()
	}
	a.workloads.Close()
}

// listen opens every socket of the agent, so that a port in use is reported before anything runs.
func (a *Agent) listen() (err error) {
	l := &a.listeners
	if l.metricsSocket, err = listenUnix(filepath.Join(a.cfg.RunDir, "metrics.sock")); err != nil {
		return err
	}
	if a.cfg.Health.Address != "off" {
		if l.health, err = listenTCP("health", a.cfg.Health.Address); err != nil {
			return err
		}
	}
	if a.cfg.Metrics.Address != "" {
		if l.metrics, err = listenTCP("metrics", a.cfg.Metrics.Address); err != nil {
			return err
		}
	}
	return a.listenWorkloads()
}

// listenUnix opens a socket that accepts connections from this user only.
func listenUnix(path string) (net.Listener, error) {
	l, err := unixsocket.Listen(path, 0o600)
	if err != nil {
		return nil, err
	}
	return ownUser{l}, nil
}

func listenTCP(field, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("%s.address %s is in use: stop what listens there, or choose another address: %w", field,
			address, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen at %s.address: %w", field, err)
	}
	return netutil.LimitListener(l, maxHTTPConnections), nil
}

// ownUser accepts connections from processes of this user only.
type ownUser struct{ net.Listener }

// Accept a connection.
func (l ownUser) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if who, err := unixsocket.Peer(c.(*net.UnixConn)); err == nil && int(who.Uid) == os.Geteuid() {
			return c, nil
		}
		c.Close()
	}
}

// serve serves all of the agent's sockets until ctx is done.
func (a *Agent) serve(ctx context.Context) error {
	parent := ctx
	g, ctx := errgroup.WithContext(ctx)
	health := a.httpServer(a.healthHandler())
	metrics := a.httpServer(a.metricsHandler())
	guarded := a.httpServer(a.guarded(a.metricsHandler()))
	guarded.TLSConfig = a.metricsTLS()
	serve := func(l net.Listener, on func(net.Listener) error) {
		if l != nil {
			g.Go(func() error { return on(l) })
		}
	}
	serve(a.listeners.health, health.Serve)
	serve(a.listeners.metricsSocket, metrics.Serve)
	serve(a.listeners.metrics, func(l net.Listener) error {
		return guarded.Serve(tls.NewListener(l, guarded.TLSConfig))
	})
	g.Go(func() error {
		<-ctx.Done()
		return errors.Join(health.Close(), metrics.Close(), guarded.Close(), ctx.Err())
	})
	if err := g.Wait(); parent.Err() == nil {
		return err
	}
	return parent.Err()
}

func (a *Agent) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second,
		IdleTimeout: 30 * time.Second, MaxHeaderBytes: 8 << 10,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
}

// healthHandler serves /healthz, whether the agent runs, and /readyz, whether its workloads are served.
func (a *Agent) healthHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := a.Ready(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		io.WriteString(w, "ready\n")
	})
	return mux
}

// Ready returns an error that names what is missing: the agent's identity, or an Envoy that has its configuration. An
// unreachable control plane does not make a ready agent unready.
func (a *Agent) Ready(ctx context.Context) error {
	if a.control.Identity() == nil {
		return errors.New("the agent has not joined the control plane yet")
	}
	for _, p := range a.serving() {
		if err := p.envoy.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}
