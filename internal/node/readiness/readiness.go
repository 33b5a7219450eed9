// Package readiness probes workloads from inside their network namespaces to learn whether they are ready.
package readiness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"isthmus.dev/isthmus/internal/node/netns"
)

// Target is one workload and its probe.
type Target struct {
	Workload  string
	Netns     string
	Addresses []netip.Addr // probed in turn until one accepts
	Port      uint16       // 0: no probe, always ready
	Path      string       // empty: TCP
	Period    time.Duration
	Timeout   time.Duration
	Failures  int // in a row until a ready workload is not
}

// Prober probes all targets.
type Prober struct {
	log     *slog.Logger
	targets []Target
	changed func()
	doubts  map[string]chan struct{} // by workload; each holds at most one

	mu    sync.Mutex // guards ready
	ready map[string]bool
}

// New makes a prober. Workloads without a probe are ready from the beginning, the others are not.
func New(log *slog.Logger, targets []Target, changed func()) *Prober {
	p := &Prober{
		log: log, targets: targets, changed: changed, doubts: map[string]chan struct{}{}, ready: map[string]bool{},
	}
	for _, t := range targets {
		p.doubts[t.Workload] = make(chan struct{}, 1)
		p.ready[t.Workload] = t.Port == 0
	}
	return p
}

// Ready reports whether the workload was ready when last probed.
func (p *Prober) Ready(workload string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready[workload]
}

// ProbeNow has a workload probed at once, since it did not accept a connection. It never blocks.
func (p *Prober) ProbeNow(workload string) {
	select {
	case p.doubts[workload] <- struct{}{}:
	default:
	}
}

// First probes every target once, concurrently, so that a workload that was ready before this agent started never seems
// unready.
func (p *Prober) First(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range p.targets {
		if t.Port != 0 {
			g.Go(func() error {
				if probe(ctx, t) == nil {
					p.set(t.Workload, true, nil)
				}
				return ctx.Err()
			})
		}
	}
	return g.Wait()
}

// Run probes until ctx is done.
func (p *Prober) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range p.targets {
		if t.Port != 0 {
			g.Go(func() error { return p.watch(ctx, t) })
		}
	}
	g.Go(func() error { <-ctx.Done(); return ctx.Err() })
	return g.Wait()
}

func (p *Prober) watch(ctx context.Context, t Target) error {
	failures, doubted := 0, false
	next := time.NewTimer(t.Period)
	defer next.Stop()
	for {
		err := probe(ctx, t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil:
			failures = 0
			p.set(t.Workload, true, nil)
		// twice now, by a caller and by the probe: nobody is there
		case doubted && errors.Is(err, syscall.ECONNREFUSED):
			failures = t.Failures
			p.set(t.Workload, false, err)
		default:
			if failures++; failures >= t.Failures {
				p.set(t.Workload, false, err)
			}
		}
		next.Reset(t.Period)
		doubted = false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next.C:
		case <-p.doubts[t.Workload]:
			doubted = true
		}
	}
}

func (p *Prober) set(workload string, ready bool, why error) {
	p.mu.Lock()
	before := p.ready[workload]
	p.ready[workload] = ready
	p.mu.Unlock()
	switch {
	case ready == before:
		return
	case ready:
		p.log.Info("workload ready", "workload", workload)
	default:
		p.log.Warn("workload not ready", "workload", workload, "error", why)
	}
	p.changed()
}

func probe(ctx context.Context, t Target) error {
	ctx, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	if t.Path == "" {
		conn, err := t.dial(ctx)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return t.get(ctx)
}

func (t Target) get(ctx context.Context) error {
	client := http.Client{
		Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return t.dial(ctx) },
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.at(t.Addresses[0])+t.Path, nil)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	req.Header.Set("User-Agent", "isthmus-probe")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("probe %s answered %s", t.Path, resp.Status)
	}
	return nil
}

func (t Target) at(a netip.Addr) string {
	return net.JoinHostPort(a.String(), strconv.Itoa(int(t.Port)))
}

func (t Target) dial(ctx context.Context) (conn net.Conn, err error) {
	err = netns.Do(t.Netns, func() error {
		var d net.Dialer
		var errs []error
		for _, a := range t.Addresses {
			var err error
			if conn, err = d.DialContext(ctx, "tcp", t.at(a)); err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	return conn, err
}
