package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/bench/adsclient"
	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/bench/proc"
	"isthmus.dev/isthmus/bench/rig"
)

// How long nothing must have arrived for the fleet to count as at rest.
const (
	quietAfterConnect = time.Second
	quietAfterChange  = 100 * time.Millisecond
)

// subject is what is measured: our own process, or a stand-in in the tests.
type subject interface {
	WaitLoaded(ctx context.Context, objects int) error
	Usage() (proc.Usage, error)
	Restart() error
}

// bench is one measurement under way.
type bench struct {
	opts      options
	mesh      *genmesh.Mesh
	fleet     *fleet
	subject   subject
	configDir string
	fresh     int // addresses used up
	figures   figures
}

// populate waits until the control plane has read everything, and joins nodes.
func (b *bench) populate(ctx context.Context, c *rig.Control, proxies int) error {
	start := time.Now()
	progress("control plane reads %d objects in %d files", b.mesh.Objects(), len(b.mesh.Services)+1)
	if err := b.loaded(ctx, b.mesh.Objects()); err != nil {
		return err
	}
	b.figures.Load = time.Since(start)

	start = time.Now()
	progress("%d nodes join", proxies)
	var err error
	if b.fleet, err = newFleet(ctx, c.Admin, c.AgentAddress, proxies); err != nil {
		return err
	}
	b.figures.Join = time.Since(start)
	return nil
}

// run is the part that needs no process of its own.
func (b *bench) run(ctx context.Context) (figures, error) {
	defer b.fleet.disconnect()
	for _, p := range []struct {
		what string
		key  string // of the matrix; empty: not in it
		run  func(context.Context) error
		took func() []time.Duration
	}{
		{
			"all proxies connect at once", "cold connect", b.coldConnect,
			func() []time.Duration { return b.figures.Synced },
		},
		{
			"endpoints change", "endpoint change", b.endpointChanges,
			func() []time.Duration { return b.figures.Endpoint.Latencies },
		},
		{
			"services are added", "service added", b.servicesAdded,
			func() []time.Duration { return b.figures.Add.Latencies },
		},
		{
			"callers are added to policies", "policy change", b.policyChanges,
			func() []time.Duration { return b.figures.Policy.Latencies },
		},
		{"endpoints churn", "1 % churn a second", b.churn, func() []time.Duration { return b.figures.Churn.Latencies }},
		{"all proxies reconnect at once", "", b.reconnect, nil},
		{
			"the control plane restarts and all proxies reconnect", "restart, reconnect", b.restart,
			func() []time.Duration { return b.figures.Restart.Back },
		},
	} {
		progress("%s", p.what)
		before, had, err := b.standing()
		if err != nil {
			return b.figures, err
		}
		if err := p.run(ctx); err != nil {
			return b.figures, fmt.Errorf("phase %q: %w", p.what, err)
		}
		u, has, err := b.standing()
		if err != nil {
			return b.figures, err
		}
		b.figures.RSS = max(b.figures.RSS, u.RSS)
		b.figures.PeakRSS, b.figures.CPUTotal = max(b.figures.PeakRSS, u.PeakRSS), u.CPU
		if p.key != "" {
			b.figures.Phases = append(b.figures.Phases, phaseOf(p.key, p.took(), had, has, u.CPU-before.CPU, u.RSS))
		}
	}
	return b.figures, nil
}

// standing is what the control plane has cost and the proxies have received so far.
func (b *bench) standing() (proc.Usage, []reading, error) {
	u, err := b.subject.Usage()
	return u, b.fleet.read(), err
}

func (b *bench) loaded(ctx context.Context, objects int) error {
	ctx, cancel := context.WithTimeout(ctx, b.opts.timeout)
	defer cancel()
	return b.subject.WaitLoaded(ctx, objects)
}

// coldConnect connects all proxies, which know nothing yet.
func (b *bench) coldConnect(ctx context.Context) error {
	before, err := b.subject.Usage()
	if err != nil {
		return err
	}
	start := time.Now()
	if err := b.fleet.connect(ctx); err != nil {
		return err
	}
	if err := b.settle(ctx, quietAfterConnect, b.incomplete); err != nil {
		return err
	}
	after, err := b.subject.Usage()
	if err != nil {
		return err
	}
	b.figures.SyncCPU = after.CPU - before.CPU
	b.figures.Types = adsclient.Totals{}
	for _, r := range b.fleet.read() {
		b.figures.Instructions += r.sync
		took := r.ads.Sum().Last.Sub(start)
		b.figures.Sync, b.figures.Synced = max(b.figures.Sync, took), append(b.figures.Synced, took)
		for t, n := range r.ads {
			sum := b.figures.Types[t]
			sum.Messages += n.Messages
			sum.Bytes += n.Bytes
			sum.Resources += n.Resources
			b.figures.Types[t] = sum
		}
	}
	return nil
}

// incomplete names a proxy that lacks something, or nobody.
func (b *bench) incomplete() error {
	for _, p := range b.fleet.proxies {
		if got := p.ads.Holds(adsclient.EDS); got < b.opts.plan.Callable {
			return fmt.Errorf("%s has the endpoints of %d services and may call %d",
				rig.NodeName(p.index), got, b.opts.plan.Callable)
		}
		if n := p.ads.Pending(); n > 0 {
			return fmt.Errorf("%s waits for %d resources that it asked for", rig.NodeName(p.index), n)
		}
	}
	return nil
}

// reconnect drops all connections and opens them again; the proxies still have what they had.
func (b *bench) reconnect(ctx context.Context) error {
	b.fleet.disconnect()
	return b.reconnectAll(ctx, &b.figures.Reconnect)
}

// restart does the same while the control plane is started anew.
func (b *bench) restart(ctx context.Context) error {
	b.fleet.disconnect()
	if err := b.subject.Restart(); err != nil {
		return err
	}
	if err := b.loaded(ctx, b.mesh.Objects()); err != nil {
		return err
	}
	return b.reconnectAll(ctx, &b.figures.Restart)
}

// reconnectAll connects all proxies and sees what they are sent although they have it.
func (b *bench) reconnectAll(ctx context.Context, into *reconnection) error {
	before, err := b.subject.Usage()
	if err != nil {
		return err
	}
	had := b.fleet.read()
	start := time.Now()
	b.fleet.last.Store(start.UnixNano())
	if err := b.fleet.connect(ctx); err != nil {
		return err
	}
	if err := b.settle(ctx, quietAfterConnect, b.incomplete); err != nil {
		return err
	}
	into.Took = time.Unix(0, b.fleet.last.Load()).Sub(start)
	after, err := b.subject.Usage()
	if err != nil {
		return err
	}
	into.CPU = after.CPU - before.CPU
	for i, r := range b.fleet.read() {
		got := r.ads.Since(had[i].ads).Sum()
		into.Back = append(into.Back, r.heard.Sub(start))
		into.ResourceBytes += got.ResourceBytes
		into.Bytes += got.Bytes
	}
	return nil
}

// settle waits until nothing has arrived for a while and nothing is missing.
func (b *bench) settle(ctx context.Context, quiet time.Duration, missing func() error) error {
	ctx, cancel := context.WithTimeout(ctx, b.opts.timeout)
	defer cancel()
	begun := time.Now()
	for {
		if err := b.fleet.failure(); err != nil {
			return err
		}
		last := time.Unix(0, b.fleet.last.Load())
		var lack error
		if time.Since(last) >= quiet && time.Since(begun) >= quiet {
			if missing == nil {
				return nil
			}
			if lack = missing(); lack == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("wait for rest: %w", ctx.Err()), lack)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
