// Package workloadapi serves the SPIFFE Workload API, its X.509 profile, to the workloads of a node: to each on a Unix
// socket of its own.
//
// The kernel says which process connected: its network namespace must be the workload's, and its user one of those in
// the settings, if they name any. Nothing that a caller says counts. Anybody whom the file system lets through can
// reach the socket; callers other than the workload are refused and logged.
//
// Keys and certificates are the ones that Envoy has (internal/node/sds): requested once, renewed once, pushed to every
// stream.
package workloadapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"isthmus.dev/isthmus/internal/node/sds"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/spiffe"
)

// Bounds on one workload's socket and on its log messages.
const (
	maxConnections = 256 // of the workload
	maxRefused     = 8   // of others, which are closed after refusedLife
	maxStreams     = 512
	refusedLife    = 2 * time.Second
	patience       = 5 * time.Second // until a caller for whom there is no certificate yet is told so
)

// Workload is one workload and its socket.
type Workload struct {
	Name    string // "<namespace>/<name>"
	Account sds.ServiceAccount
	Netns   string // path of its network namespace; empty: the agent's own
	Path    string // of the socket
	Users   []uint32
}

// Store holds the certificates of this node.
type Store interface {
	// Acquire gives the present state of an identity; false when it is not this node's.
	Acquire(id spiffe.ID) (sds.IdentityState, bool)
}

// Config of a Server.
type Config struct {
	Log       *slog.Logger
	Workloads []Workload
	// Folder of the sockets that are not placed elsewhere: what an earlier agent left there is removed.
	Folder string
	Store  Store
	// Joined is closed when TrustDomain has an answer.
	Joined      <-chan struct{}
	TrustDomain func() spiffe.TrustDomain
	// Changed is called when Troubles changed.
	Changed func()
}

// Server serves all workloads of a node.
type Server struct {
	cfg      Config
	patience time.Duration
	served   []*served
	limit    *rate.Limiter // of refusals said in the log
	silenced atomic.Uint64 // refusals that the limit left out since the last that was said
}

// served is one workload and what its socket holds.
type served struct {
	Workload
	server    *Server
	listener  *listener
	callers   atomic.Int64 // connections of the workload
	strangers atomic.Int64 // connections of others, about to be closed
	streams   atomic.Int64
	refused   atomic.Uint64 // since the agent began
	trouble   atomic.Pointer[error]
}

// New makes a server that does not listen yet.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, patience: patience, limit: rate.NewLimiter(10, 50)}
	for _, w := range cfg.Workloads {
		s.served = append(s.served, &served{Workload: w, server: s})
	}
	return s
}

// Listen opens every socket that it can. Run retries the others: a socket that cannot be opened affects no other
// workload.
func (s *Server) Listen() error {
	errs := []error{s.removeLeftovers()}
	for _, w := range s.served {
		errs = append(errs, w.listen())
	}
	return errors.Join(errs...)
}

func (w *served) listen() error {
	l, err := listenAt(w.Path)
	if err != nil {
		err = fmt.Errorf("serve the Workload API to workload %s: %w", w.Name, err)
		w.trouble.Store(&err)
		return err
	}
	w.listener = &listener{UnixListener: l, served: w}
	w.trouble.Store(nil)
	return nil
}

// Troubles say why workloads have no socket, by workload.
func (s *Server) Troubles() map[string]error {
	out := map[string]error{}
	for _, w := range s.served {
		if err := w.trouble.Load(); err != nil {
			out[w.Name] = *err
		}
	}
	return out
}

// Close closes every socket and removes it.
func (s *Server) Close() {
	for _, w := range s.served {
		if w.listener != nil {
			w.listener.Close()
		}
	}
}

// Run serves until ctx is done.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range s.served {
		g.Go(func() error { return w.run(ctx) })
	}
	g.Go(func() error { <-ctx.Done(); return ctx.Err() })
	return g.Wait()
}

// run serves one workload until ctx ends, and opens its socket again for as long as that fails.
func (w *served) run(ctx context.Context) error {
	again := retry.Backoff{Min: 250 * time.Millisecond, Max: 5 * time.Second}
	for ctx.Err() == nil {
		if w.listener != nil {
			server := w.grpc()
			stop := context.AfterFunc(ctx, server.Stop)
			err := server.Serve(w.listener)
			stop()
			if ctx.Err() != nil {
				break
			}
			w.listener.Close()
			w.listener = nil
			w.trouble.Store(&err)
			w.server.changed()
			w.server.cfg.Log.Error("Workload API not served, trying again", "workload", w.Name, "error", err)
		}
		if err := retry.Sleep(ctx, again.Next()); err != nil {
			return err
		}
		if w.listen() == nil {
			again.Reset()
			w.server.changed()
			w.server.cfg.Log.Info("Workload API served", "workload", w.Name)
		}
	}
	return ctx.Err()
}

func (s *Server) changed() {
	if s.cfg.Changed != nil {
		s.cfg.Changed()
	}
}

// grpc returns the server of one workload. Requests say nothing, so that little room is enough.
func (w *served) grpc() *grpc.Server {
	server := grpc.NewServer(
		grpc.Creds(kernel{}), grpc.UnaryInterceptor(guardUnary), grpc.StreamInterceptor(guardStream),
		grpc.ConnectionTimeout(5*time.Second), grpc.MaxConcurrentStreams(32), grpc.MaxRecvMsgSize(4<<10),
		grpc.MaxHeaderListSize(8<<10),
		grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Minute}),
	)
	workload.RegisterSpiffeWorkloadAPIServer(server, &service{served: w})
	return server
}
