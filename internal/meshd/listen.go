package meshd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/unixsocket"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Limits for one connection.
const (
	maxHeaders    = 16 << 10
	maxStreams    = 256      // one for each Envoy of a host, and a few more
	streamWindow  = 64 << 10 // what a call may send before it is read; a long message that is expected gets more
	readBuffer    = 0        // TLS has what it has read in a buffer of its own
	maxIdle       = 5 * time.Minute
	stopPatience  = 2 * time.Second
	headerTimeout = 5 * time.Second
	healthLife    = 30 * time.Second
)

// File descriptors for callers without TLS, so that TLS connections cannot use them up.
var (
	socketLimits = door.Limits{Unproven: 16, PerAddress: 16, Proven: 128, PerCaller: 128}
	healthLimits = door.Limits{Unproven: 64, PerAddress: 64}
)

// listeners are bound before anything runs, so that a port in use is reported at once and nothing is left behind.
type listeners struct {
	agents, socket, peering, health, metrics *door.Listener
}

func (d *Daemon) listen() (*listeners, error) {
	ls := &listeners{}
	d.connections = door.NewBudget(door.LimitsFor(door.OpenFiles()))
	byTLS := func(protos ...string) door.Proof { return door.ByTLS(d.authority.ServerTLS(d.identity, protos...)) }
	for _, l := range []struct {
		to            **door.Listener
		name, address string
		config        door.ListenerConfig
	}{
		{&ls.agents, "agentAddress", d.cfg.AgentAddress, door.ListenerConfig{
			Prove: byTLS("h2"), Budget: d.connections, Proven: d.withValidCertificate(isAgentOrAdmin),
		}},
		{&ls.peering, "peeringAddress", d.cfg.PeeringAddress, door.ListenerConfig{
			Prove: byTLS(wellknown.PeeringProtocol, "http/1.1"), Budget: d.connections,
			Proven: d.withValidCertificate(isGateway),
		}},
		{&ls.metrics, "metricsAddress", d.cfg.MetricsAddress, door.ListenerConfig{
			Prove: byTLS("http/1.1"), Budget: d.connections, Proven: d.withValidCertificate(mayRead),
		}},
		{&ls.health, "healthAddress", d.cfg.HealthAddress, door.ListenerConfig{
			Prove: door.NoProof, Budget: door.NewBudget(healthLimits), Life: healthLife,
		}},
	} {
		var lc net.ListenConfig
		if l.to == &ls.agents {
			lc = net.ListenConfig{KeepAliveConfig: agentKeepAlive, Control: agentTimeout}
		}
		ln, err := lc.Listen(context.Background(), "tcp", l.address)
		if err != nil {
			ls.close()
			return nil, fmt.Errorf("%s: %w: choose another address, or stop what uses it", l.name, err)
		}
		l.config.Listener, l.config.Log, l.config.Opened = ln, d.log, d.door.Opened
		*l.to = door.Listen(l.config)
	}
	ln, err := unixsocket.Listen(d.cfg.Socket, 0o600)
	if err != nil {
		ls.close()
		return nil, fmt.Errorf("socket: %w", err)
	}
	ls.socket = door.Listen(door.ListenerConfig{
		Listener: ln, Prove: door.ByKernel, Budget: door.NewBudget(socketLimits), Proven: isLocal, Log: d.log,
	})
	return ls, nil
}

// withValidCertificate restricts a condition on callers to those whose certificate is valid now. A caller with an
// invalid one gets an answer but uses none of its owner's connections.
func (d *Daemon) withValidCertificate(of func(door.Caller) bool) func(door.Caller) bool {
	return func(c door.Caller) bool { return of(c) && d.standing.Judge(context.Background(), c) == nil }
}

func isLocal(c door.Caller) bool        { return c.Kind == door.Local }
func isAgentOrAdmin(c door.Caller) bool { return c.Kind&(door.Node|door.Administrator) != 0 }

// isGateway reports whether a caller may hold connections to the peering port. Whether it is a registered gateway is
// checked where it is served.
func isGateway(c door.Caller) bool {
	return c.Kind == door.Workload && strings.HasPrefix(c.Name, spiffe.SystemNamespace+"/")
}

func (ls *listeners) all() []*door.Listener {
	return []*door.Listener{ls.agents, ls.socket, ls.peering, ls.health, ls.metrics}
}

// run accepts connections.
func (ls *listeners) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range ls.all() {
		g.Go(func() error { return l.Run(ctx) })
	}
	return g.Wait()
}

func (ls *listeners) close() {
	for _, l := range ls.all() {
		if l != nil {
			l.Close()
		}
	}
}

// The kernel closes a connection whose other end has not answered for three seconds. The other kernel answers, however
// busy its host is.
var agentKeepAlive = net.KeepAliveConfig{Enable: true, Idle: time.Second, Interval: time.Second, Count: 2}

func agentTimeout(_, _ string, raw syscall.RawConn) (err error) {
	if e := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT,
			3000)
	}); e != nil {
		return e
	}
	return err
}

// longest returns the maximum length of a message.
func longest(methods map[string]door.Method) (bytes int) {
	for _, m := range methods {
		bytes = max(bytes, m.Bytes)
	}
	return bytes
}

func (d *Daemon) grpcServer() *grpc.Server {
	return grpc.NewServer(append(d.door.Options(),
		grpc.MaxRecvMsgSize(longest(methods)), grpc.MaxHeaderListSize(maxHeaders),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.StaticStreamWindowSize(streamWindow), grpc.ConnectionTimeout(headerTimeout), grpc.WaitForHandlers(true),
		grpc.ReadBufferSize(readBuffer),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 20 * time.Second, Timeout: 10 * time.Second,
			MaxConnectionIdle: maxIdle,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime:             5 * time.Second,
			PermitWithoutStream: true,
		}),
	)...)
}

func (d *Daemon) serveAgents(ls *listeners) func(context.Context) error {
	return func(ctx context.Context) error {
		s := d.grpcServer()
		s.RegisterService(&agentapi.Desc, d.agents)
		s.RegisterService(&adminapi.Desc, d.admin)
		discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, d.xds)
		return serveGRPC(ctx, s, ls.agents)
	}
}

func (d *Daemon) serveSocket(ls *listeners) func(context.Context) error {
	return func(ctx context.Context) error {
		s := d.grpcServer()
		s.RegisterService(&adminapi.Desc, d.admin)
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

// servePeering serves peers' control traffic, to this mesh's gateways only.
func (d *Daemon) servePeering(ls *listeners) func(context.Context) error {
	return func(ctx context.Context) error {
		return d.federation.Serve(ctx, ls.peering)
	}
}

// serveHealth returns the only endpoint without authentication. It tells only whether the process is alive and has a
// configuration, and whether some of that is not in effect. A control plane that can serve stays ready in the latter
// case: taking it out of service because of a mistake in a file would keep agents from the fix. "/readyz?strict" is for
// those who prefer to hold back a rollout.
func (d *Daemon) serveHealth(ls *listeners) func(context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if d.loop.Published() == nil {
			http.Error(w, "no configuration in force yet", http.StatusServiceUnavailable)
			return
		}
		text := readiness(d.loop.Published().Findings)
		if text != "ok" && r.URL.Query().Has("strict") {
			http.Error(w, text, http.StatusServiceUnavailable)
			return
		}
		w.Write([]byte(text + "\n"))
	})
	return func(ctx context.Context) error { return serveHTTP(ctx, plainServer(mux, d.log), ls.health) }
}

// readiness returns "ok", or says that something written is not in effect. It names nothing, since anybody may ask.
func readiness(findings []finding.Finding) string {
	n := 0
	for _, f := range findings {
		if f.NotInForce() {
			n++
		}
	}
	if n == 0 {
		return "ok"
	}
	what := "1 object of the configuration is not in force, and what it selects is closed"
	if n > 1 {
		what = fmt.Sprintf("%d objects of the configuration are not in force, and what they select is closed", n)
	}
	return "degraded: " + what + ": see isthmus status --findings"
}

func plainServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: 2 * headerTimeout, WriteTimeout: 6 * headerTimeout,
		IdleTimeout:    12 * headerTimeout,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func serveHTTP(ctx context.Context, s *http.Server, l net.Listener) error {
	s.ConnContext = door.ConnContext
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
			<-stopped // requests in progress may still use the state
		}
	}()
	if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}
