package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// measure runs all the phases, one after the other.
func measure(ctx context.Context, o options, mesh *genmesh.Mesh, c *rig.Control, configDir string) (figures, error) {
	b := &bench{opts: o, mesh: mesh, subject: c, configDir: configDir, figures: figures{Plan: o.plan}}
	start := time.Now()
	progress("control plane reads %d objects in %d files", mesh.Objects(), len(mesh.Services)+1)
	if err := b.loaded(ctx, mesh.Objects()); err != nil {
		return b.figures, err
	}
	b.figures.Load = time.Since(start)

	start = time.Now()
	progress("%d nodes join", o.plan.Proxies)
	var err error
	b.fleet, err = newFleet(ctx, c.Admin, c.AgentAddress, o.plan.Proxies)
	if err != nil {
		return b.figures, err
	}
	b.figures.Join = time.Since(start)
	return b.run(ctx)
}

// run is the part that needs no process of its own.
func (b *bench) run(ctx context.Context) (figures, error) {
	defer b.fleet.disconnect()
	for _, phase := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"all proxies connect at once", b.coldConnect},
		{"endpoints change", b.endpointChanges},
		{"services are added", b.servicesAdded},
		{"callers are added to policies", b.policyChanges},
		{"all proxies reconnect at once", b.reconnect},
	} {
		progress("%s", phase.what)
		if err := phase.run(ctx); err != nil {
			return b.figures, fmt.Errorf("while %s: %w", phase.what, err)
		}
		u, err := b.subject.Usage()
		if err != nil {
			return b.figures, err
		}
		b.figures.RSS = max(b.figures.RSS, u.RSS)
		b.figures.PeakRSS, b.figures.CPUTotal = u.PeakRSS, u.CPU
	}
	return b.figures, nil
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
		b.figures.Sync = max(b.figures.Sync, r.ads.Sum().Last.Sub(start))
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
			return fmt.Errorf("%s has the endpoints of %d services and may call %d", rig.NodeName(p.index), got, b.opts.plan.Callable)
		}
		if n := p.ads.Pending(); n > 0 {
			return fmt.Errorf("%s waits for %d resources that it asked for", rig.NodeName(p.index), n)
		}
	}
	return nil
}

// endpointChanges changes one endpoint of one service at a time.
func (b *bench) endpointChanges(ctx context.Context) error {
	called := b.mesh.Called()
	for n := range b.opts.changes {
		s := &b.mesh.Services[called[n*7919%len(called)].Index] // a prime: all over the mesh
		addr := b.next()
		s.Endpoints[n%len(s.Endpoints)] = addr
		if err := b.change(ctx, &b.figures.Endpoint, *s, addr, s.Callers); err != nil {
			return err
		}
	}
	return nil
}

// servicesAdded adds services that a hundredth of the proxies may call.
func (b *bench) servicesAdded(ctx context.Context) error {
	for n := range b.opts.adds {
		s := genmesh.Service{Index: len(b.mesh.Services)}
		for range b.opts.plan.Endpoints {
			s.Endpoints = append(s.Endpoints, b.next())
		}
		for i := range max(1, b.opts.plan.Proxies/100) {
			s.Callers = append(s.Callers, (n+i*100)%b.opts.plan.Proxies)
		}
		b.mesh.Services = append(b.mesh.Services, s)
		if err := b.change(ctx, &b.figures.Add, s, s.Endpoints[0], s.Callers); err != nil {
			return err
		}
	}
	return nil
}

// policyChanges lets one more workload call a service; what is waited for is that its proxy learns the endpoints.
func (b *bench) policyChanges(ctx context.Context) error {
	called := b.mesh.Called()
	for n := range b.opts.adds {
		s := &b.mesh.Services[called[n*104729%len(called)].Index]
		added := 0
		for slices.Contains(s.Callers, added) {
			added++
		}
		if added == b.opts.plan.Proxies {
			continue // all may already
		}
		s.Callers = append(slices.Clone(s.Callers), added)
		if err := b.change(ctx, &b.figures.Policy, *s, s.Endpoints[0], []int{added}); err != nil {
			return err
		}
	}
	return nil
}

// change writes a service's file, waits until the expected proxies have the address, and counts what the others got.
func (b *bench) change(ctx context.Context, into *changes, s genmesh.Service, addr address, expected []int) error {
	n := &needle{typeURL: adsclient.EDS, content: onTheWire(addr), arrived: make(chan arrival, 4*len(b.fleet.proxies))}
	b.fleet.watch.Store(n)
	defer b.fleet.watch.Store(nil)
	before := b.fleet.read()
	written, err := b.replace(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.opts.timeout)
	defer cancel()
	for waiting := slices.Clone(expected); len(waiting) > 0; {
		select {
		case a := <-n.arrived:
			if i := slices.Index(waiting, a.proxy); i >= 0 {
				waiting = slices.Delete(waiting, i, i+1)
				into.Latencies = append(into.Latencies, a.at.Sub(written))
			}
		case <-ctx.Done():
			return fmt.Errorf("%d proxies have not heard that %s has address %s: %w", len(waiting), s.Name(), addr, ctx.Err())
		}
	}
	if err := b.settle(ctx, quietAfterChange, nil); err != nil {
		return err
	}
	into.Count++
	for i, now := range b.fleet.read() {
		got := now.ads.Since(before[i].ads).Sum().Bytes
		instructed := now.sync - before[i].sync
		if slices.Contains(s.Callers, i) {
			into.BytesConcerned += got
			into.Concerned++
		} else {
			into.BytesOthers += got + instructed
		}
	}
	return nil
}

// replace writes a service's file as an editor should, all at once, and says when it began.
func (b *bench) replace(s genmesh.Service) (time.Time, error) {
	aside := filepath.Join(filepath.Dir(b.configDir), "next.yaml")
	if err := os.WriteFile(aside, []byte(s.YAML()), 0o644); err != nil {
		return time.Time{}, fmt.Errorf("write %s: %w", s.File(), err)
	}
	at := time.Now()
	if err := os.Rename(aside, filepath.Join(b.configDir, s.File())); err != nil {
		return time.Time{}, fmt.Errorf("write %s: %w", s.File(), err)
	}
	return at, nil
}

// reconnect drops all connections and opens them again; the proxies still have what they had.
func (b *bench) reconnect(ctx context.Context) error {
	before, err := b.subject.Usage()
	if err != nil {
		return err
	}
	b.fleet.disconnect()
	had := b.fleet.read()
	start := time.Now()
	b.fleet.last.Store(start.UnixNano())
	if err := b.fleet.connect(ctx); err != nil {
		return err
	}
	if err := b.settle(ctx, quietAfterConnect, b.incomplete); err != nil {
		return err
	}
	b.figures.Reconnect = time.Unix(0, b.fleet.last.Load()).Sub(start)
	after, err := b.subject.Usage()
	if err != nil {
		return err
	}
	b.figures.ReconnectCPU = after.CPU - before.CPU
	for i, r := range b.fleet.read() {
		got := r.ads.Since(had[i].ads).Sum()
		b.figures.ReconnectResourceBytes += got.ResourceBytes
		b.figures.ReconnectBytes += got.Bytes
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

// next is an address that nothing had before.
func (b *bench) next() address {
	b.fresh++
	return genmesh.Fresh(b.fresh)
}
