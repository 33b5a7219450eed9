package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/bench/adsclient"
	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/bench/rig"
	"isthmus.dev/isthmus/internal/agentapi"
)

// fleet is all the proxies of one run, each on a connection of its own as on a host of its own.
type fleet struct {
	address string
	proxies []*proxy
	last    atomic.Int64 // when anything last arrived anywhere, Unix ns
	watch   watch

	mu     sync.Mutex // guards failed
	failed error      // the first stream that ended unasked
}

// proxy is one agent and its Envoy, which are one process here.
type proxy struct {
	index     int
	tls       *tls.Config
	ads       *adsclient.Client
	syncBytes atomic.Int64 // instructions received on the agent's own stream
	syncLast  atomic.Int64 // when the last arrived, Unix ns
	stop      func()
}

// newFleet joins n nodes.
func newFleet(ctx context.Context, admin grpc.ClientConnInterface, address string, n int) (*fleet, error) {
	f := &fleet{address: address, proxies: make([]*proxy, n)}
	shared := adsclient.NewReferences()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error {
			cfg, err := rig.Join(ctx, admin, address, i)
			if err != nil {
				return err
			}
			f.proxies[i] = &proxy{index: i, tls: cfg, ads: adsclient.New(adsclient.Config{
				References: shared,
				OnMessage:  func(m adsclient.Message) { f.received(i, m) },
			})}
			return nil
		})
	}
	return f, g.Wait()
}

// received is called on every message of every proxy.
func (f *fleet) received(proxy int, m adsclient.Message) {
	f.last.Store(m.At.UnixNano())
	f.watch.look(proxy, m)
}

// connect opens both streams of every proxy at once. It returns before anything is known to have arrived.
func (f *fleet) connect(ctx context.Context) error {
	for _, p := range f.proxies {
		if err := f.connectOne(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) connectOne(ctx context.Context, p *proxy) error {
	conn, err := grpc.NewClient(f.address,
		grpc.WithTransportCredentials(credentials.NewTLS(p.tls.Clone())),
		grpc.WithStatsHandler(&syncCounter{fleet: f, proxy: p}))
	if err != nil {
		return fmt.Errorf("dial %s: %w", f.address, err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	serve := func(name string, run func() error) {
		g.Go(func() error {
			if err := run(); err != nil && ctx.Err() == nil {
				f.fail(fmt.Errorf("%s stream of %s ended: %w", name, rig.NodeName(p.index), err))
			}
			return nil
		})
	}
	serve("sync", func() error { return rig.RunAgentStream(ctx, conn, genmesh.Workload(p.index)) })
	serve("ADS", func() error { return runADS(ctx, p.ads, conn) })
	p.stop = func() {
		cancel()
		g.Wait()
		conn.Close()
	}
	return nil
}

// retryADS is how soon a stream that came before its agent's registration is tried again, as Envoy would, though
// sooner.
const retryADS = 20 * time.Millisecond

// runADS serves the proxy's stream. Agent and Envoy connect side by side, so Envoy may come a moment too early.
func runADS(ctx context.Context, c *adsclient.Client, conn grpc.ClientConnInterface) error {
	for {
		err := c.Run(ctx, conn)
		if status.Code(errors.Unwrap(err)) != codes.FailedPrecondition {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retryADS):
		}
	}
}

// disconnect closes every connection.
func (f *fleet) disconnect() {
	var g errgroup.Group
	for _, p := range f.proxies {
		if p != nil && p.stop != nil {
			g.Go(func() error { p.stop(); return nil })
		}
	}
	g.Wait()
}

func (f *fleet) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == nil {
		f.failed = err
	}
}

func (f *fleet) failure() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.failed
}

// reading is what one proxy has received so far.
type reading struct {
	ads   adsclient.Totals
	sync  int
	heard time.Time // when anything last arrived
}

func (f *fleet) read() []reading {
	all := make([]reading, len(f.proxies))
	for i, p := range f.proxies {
		all[i] = reading{ads: p.ads.Totals(), sync: int(p.syncBytes.Load()), heard: time.Unix(0, p.syncLast.Load())}
		if last := all[i].ads.Sum().Last; last.After(all[i].heard) {
			all[i].heard = last
		}
	}
	return all
}

// syncCounter counts what arrives on the agent's own stream.
type syncCounter struct {
	fleet *fleet
	proxy *proxy
}

type syncKey struct{}

// TagRPC marks the calls to count.
func (s *syncCounter) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, syncKey{}, strings.HasPrefix(info.FullMethodName, "/"+agentapi.Service+"/"))
}

// HandleRPC counts one payload.
func (s *syncCounter) HandleRPC(ctx context.Context, r stats.RPCStats) {
	if in, ok := r.(*stats.InPayload); ok && ctx.Value(syncKey{}) == true {
		s.proxy.syncBytes.Add(int64(in.Length))
		s.proxy.syncLast.Store(in.RecvTime.UnixNano())
		s.fleet.last.Store(in.RecvTime.UnixNano())
	}
}

// TagConn does nothing.
func (s *syncCounter) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn does nothing.
func (s *syncCounter) HandleConn(context.Context, stats.ConnStats) {}
