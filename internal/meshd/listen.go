package meshd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
)

// Bounds on what one connection may ask of us.
const (
	maxMessage    = 4 << 20
	maxHeaders    = 16 << 10
	maxStreams    = 256     // one for each Envoy of a host, and a few
	readBuffer    = 4 << 10 // of each connection; what agents and Envoys send is small
	maxIdle       = 5 * time.Minute
	stopPatience  = 2 * time.Second
	headerTimeout = 5 * time.Second
)

// listeners are bound before anything runs, so that a port in use is said at once and nothing is left behind.
type listeners struct {
	agents, socket, peering, health, metrics net.Listener
}

func (d *Daemon) listen() (*listeners, error) {
	ls := &listeners{}
	for _, l := range []struct {
		to            *net.Listener
		network, name string
		address       string
	}{
		{&ls.agents, "tcp", "agentAddress", d.cfg.AgentAddress},
		{&ls.peering, "tcp", "peeringAddress", d.cfg.PeeringAddress},
		{&ls.health, "tcp", "healthAddress", d.cfg.HealthAddress},
		{&ls.metrics, "tcp", "metricsAddress", d.cfg.MetricsAddress},
	} {
		ln, err := net.Listen(l.network, l.address)
		if err != nil {
			ls.close()
			return nil, fmt.Errorf("%s: %w: choose another address, or stop what uses it", l.name, err)
		}
		*l.to = ln
	}
	var err error
	if ls.socket, err = listenUnix(d.cfg.Socket); err != nil {
		ls.close()
		return nil, err
	}
	return ls, nil
}

// listenUnix makes a socket that only its owner can open. What a crashed control plane left is taken over; a live one is not.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("socket %s is in use: another control plane runs here; stop it, or choose another socket", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("socket: remove what was left: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	return ln, nil
}

func (ls *listeners) close() {
	for _, l := range []net.Listener{ls.agents, ls.socket, ls.peering, ls.health, ls.metrics} {
		if l != nil {
			l.Close()
		}
	}
}

func (d *Daemon) grpcServer(creds credentials.TransportCredentials) *grpc.Server {
	return grpc.NewServer(
		grpc.Creds(creds), grpc.InTapHandle(newDoor().enter), grpc.ChainUnaryInterceptor(authorizeUnary, d.judgeUnary), grpc.ChainStreamInterceptor(authorizeStream, d.judgeStream),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxHeaderListSize(maxHeaders), grpc.MaxConcurrentStreams(maxStreams), grpc.ConnectionTimeout(headerTimeout),
		grpc.WaitForHandlers(true), grpc.ReadBufferSize(readBuffer),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: maxIdle}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
}

func (d *Daemon) serveAgents(ls *listeners) func(context.Context) error {
	return func(ctx context.Context) error {
		s := d.grpcServer(credentials.NewTLS(d.openings.watch(d.authority.ServerTLS(d.identity, "h2"))))
		s.RegisterService(&agentapi.Desc, d.agents)
		s.RegisterService(&adminapi.Desc, &admin{d})
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, d.xds)
		return serveGRPC(ctx, s, d.openings.listen(ls.agents))
	}
}

func (d *Daemon) serveSocket(ls *listeners) func(context.Context) error {
	return func(ctx context.Context) error {
		s := d.grpcServer(peerCredentials{})
		s.RegisterService(&adminapi.Desc, &admin{d})
		return serveGRPC(ctx, s, ls.socket)
	}
}

func serveGRPC(ctx context.Context, s *grpc.Server, l net.Listener) error {
	stop := context.AfterFunc(ctx, s.Stop)
	defer stop()
	if err := s.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// servePeering serves what peers' control planes say, to this mesh's gateways only.
func (d *Daemon) servePeering(ls *listeners) func(context.Context) error {
	return func(ctx context.Context) error {
		cfg := d.openings.watch(d.authority.ServerTLS(d.identity, "http/1.1"))
		s := d.federation.HTTPServer(cfg)
		s.Handler = d.judgeHTTP(s.Handler)
		s.ReadHeaderTimeout = headerTimeout // until it has said who it is; what a gateway passes on may take longer
		return serveHTTP(ctx, s, tls.NewListener(d.openings.listen(ls.peering), cfg))
	}
}

// serveHealth is the one endpoint without authentication: it says only whether the process lives and has configuration, and
// whether some of that is not in force. A control plane that serves the rest stays ready, since whoever sends its agents away for
// a mistake in a file keeps them from what mends it; who would rather hold back a rollout asks for "/readyz?strict".
func (d *Daemon) serveHealth(ls *listeners) func(context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if d.loop.published.Load() == nil {
			http.Error(w, "no configuration in force yet", http.StatusServiceUnavailable)
			return
		}
		text := readiness(d.loop.published.Load().findings)
		if text != "ok" && r.URL.Query().Has("strict") {
			http.Error(w, text, http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte(text + "\n"))
	})
	return func(ctx context.Context) error { return serveHTTP(ctx, plainServer(mux, d.log), ls.health) }
}

// readiness is "ok", or says that something written is not in force. It names nothing: anybody may ask.
func readiness(findings []finding.Finding) string {
	n := 0
	for _, f := range findings {
		if slices.Contains(notInForce, f.Code) {
			n++
		}
	}
	if n == 0 {
		return "ok"
	}
	return fmt.Sprintf("degraded: %d objects of the configuration are not in force, and what they select is closed: isthmus status names them", n)
}

func plainServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: 2 * headerTimeout, WriteTimeout: 6 * headerTimeout, IdleTimeout: 12 * headerTimeout,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func serveHTTP(ctx context.Context, s *http.Server, l net.Listener) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		patience, cancel := context.WithTimeout(context.Background(), stopPatience)
		defer cancel()
		if s.Shutdown(patience) != nil {
			s.Close()
		}
	})
	defer func() {
		if !stop() {
			<-stopped // what is under way may still use the state file
		}
	}()
	if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}
