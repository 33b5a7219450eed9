package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"isthmus.dev/isthmus/bench/genmesh"
)

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
func (b *bench) change(ctx context.Context, into *changes, s genmesh.Service, addr netip.Addr, expected []int) error {
	before := b.fleet.read()
	w, err := b.replace(s, addr, expected)
	if err != nil {
		return err
	}
	if err := b.heard(ctx, into, w, s, addr); err != nil {
		return err
	}
	if err := b.settle(ctx, quietAfterChange, nil); err != nil {
		return err
	}
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

// heard waits until all who were to hear have heard.
func (b *bench) heard(ctx context.Context, into *changes, w *wait, s genmesh.Service, addr netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, b.opts.timeout)
	defer cancel()
	select {
	case <-w.done:
	case <-ctx.Done():
		return fmt.Errorf("%d proxies have not heard that %s has address %s: %w", len(b.fleet.watch.outstanding(w)),
			s.Name(), addr, ctx.Err())
	}
	into.Count++
	into.Latencies = append(into.Latencies, w.latencies...)
	return nil
}

// replace writes a service's file as an editor should, all at once, and begins to wait just before.
func (b *bench) replace(s genmesh.Service, addr netip.Addr, expected []int) (*wait, error) {
	aside := filepath.Join(filepath.Dir(b.configDir), "next.yaml")
	if err := os.WriteFile(aside, []byte(s.YAML()), 0o644); err != nil {
		return nil, fmt.Errorf("write %s: %w", s.File(), err)
	}
	w := b.fleet.watch.expect(addr, expected)
	if err := os.Rename(aside, filepath.Join(b.configDir, s.File())); err != nil {
		return nil, fmt.Errorf("write %s: %w", s.File(), err)
	}
	return w, nil
}

// churn changes a hundredth of all endpoints every second, without waiting for one change before the next.
func (b *bench) churn(ctx context.Context) error {
	if b.opts.churn == 0 {
		return nil
	}
	before, err := b.subject.Usage()
	if err != nil {
		return err
	}
	type pending struct {
		*wait
		service genmesh.Service
		addr    netip.Addr
	}
	var waits []pending
	perSecond := max(1, b.opts.plan.Services*b.opts.plan.Endpoints/100)
	start, tick := time.Now(), time.NewTicker(time.Second/time.Duration(perSecond))
	defer tick.Stop()
	for n := 0; time.Since(start) < b.opts.churn; n++ {
		s := &b.mesh.Services[n*7919%len(b.mesh.Services)]
		addr := b.next()
		s.Endpoints[n%len(s.Endpoints)] = addr
		w, err := b.replace(*s, addr, s.Callers)
		if err != nil {
			return err
		}
		waits = append(waits, pending{w, *s, addr})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.figures.ChurnTime = time.Since(start)
	for _, p := range waits {
		if err := b.heard(ctx, &b.figures.Churn, p.wait, p.service, p.addr); err != nil {
			return err
		}
	}
	after, err := b.subject.Usage()
	b.figures.ChurnCPU = after.CPU - before.CPU
	return err
}

// next is an address that nothing had before.
func (b *bench) next() netip.Addr {
	b.fresh++
	return genmesh.Fresh(b.fresh)
}
