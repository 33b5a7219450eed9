package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"isthmus.dev/isthmus/bench/genmesh"
	"isthmus.dev/isthmus/bench/rig"
)

const (
	honest         = 50 // proxies that must not notice
	hostileRounds  = 8
	hostileChanges = 15                     // endpoint changes in one turn, each to all honest proxies
	warmUp         = 700 * time.Millisecond // an attacker joins and begins
)

// attackResult is one attack, or all at once, and what the honest proxies noticed of it.
type attackResult struct {
	Attack   string  `json:"attack"`
	AloneP50 float64 `json:"alone_p50_ms"`
	AloneP99 float64 `json:"alone_p99_ms"`
	UnderP50 float64 `json:"under_p50_ms"`
	UnderP99 float64 `json:"under_p99_ms"`
	Ratio    float64 `json:"p99_ratio"`
	Cores    float64 `json:"cores"`    // of the control plane, under attack
	Requests int     `json:"requests"` // that the attackers got rid of
	alone    []time.Duration
	under    []time.Duration
	cpu      time.Duration
	took     time.Duration
	by       []attack
}

// hostile measures how long endpoint changes take to reach honest proxies, alternately alone and during each attack.
func hostile(ctx context.Context, o options) error {
	o.plan.Proxies = honest + len(attacks)
	mesh, err := genmesh.New(o.plan)
	if err != nil {
		return err
	}
	popular := &mesh.Services[0] // everyone may call it, the attackers too
	popular.Callers = nil
	for i := range o.plan.Proxies {
		popular.Callers = append(popular.Callers, i)
	}
	b, control, stop, err := startBench(ctx, o, mesh, honest)
	if err != nil {
		return err
	}
	defer stop()
	if err := b.coldConnect(ctx); err != nil {
		return err
	}
	sieges := []*attackResult{}
	for _, a := range attacks {
		sieges = append(sieges, &attackResult{Attack: a.name, by: []attack{a}})
	}
	sieges = append(sieges, &attackResult{Attack: "all at once", by: attacks})
	for round := range hostileRounds {
		progress("round %d of %d", round+1, hostileRounds)
		for _, s := range sieges {
			if err := b.measureAttack(ctx, s, control); err != nil {
				return fmt.Errorf("%s: %w", s.Attack, err)
			}
		}
	}
	return printSieges(sieges)
}

// measureAttack has one turn alone and one under attack.
func (b *bench) measureAttack(ctx context.Context, s *attackResult, control *rig.Control) error {
	alone, err := b.timeChanges(ctx)
	if err != nil {
		return err
	}
	s.alone = append(s.alone, alone...)
	for _, a := range s.by {
		proxy := honest + slices.IndexFunc(attacks, func(x attack) bool { return x.name == a.name })
		stop, err := a.launch(proxy, control)
		if err != nil {
			return err
		}
		defer func() { s.Requests += stop() }()
	}
	time.Sleep(warmUp)
	before, err := b.subject.Usage()
	if err != nil {
		return err
	}
	start := time.Now()
	under, err := b.timeChanges(ctx)
	if err != nil {
		return err
	}
	after, err := b.subject.Usage()
	s.under, s.cpu, s.took = append(s.under, under...), s.cpu+after.CPU-before.CPU, s.took+time.Since(start)
	return err
}

// timeChanges changes an endpoint of the service that all may call, again and again, and says how long each change took
// to each honest proxy.
func (b *bench) timeChanges(ctx context.Context) ([]time.Duration, error) {
	var seen changes
	s, all := &b.mesh.Services[0], make([]int, honest)
	for i := range all {
		all[i] = i
	}
	for n := range hostileChanges {
		addr := b.next()
		s.Endpoints[n%len(s.Endpoints)] = addr
		w, err := b.replace(*s, addr, all)
		if err != nil {
			return nil, err
		}
		if err := b.heard(ctx, &seen, w, *s, addr); err != nil {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return seen.Latencies, b.fleet.failure()
}

func printSieges(all []*attackResult) error {
	fmt.Printf("\nEndpoint changes to %d honest proxies, from the file's write, beside nodes of the mesh that do their worst\n\n", honest)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t,
		"\tattack\talone p50\tp99\tunder attack p50\tp99\tratio of p99 (aim ≤ 2)\tcontrol plane\trequests taken")
	for _, s := range all {
		ms := func(took []time.Duration, q float64) float64 { return round(quantile(took, q).Seconds()*1000, 1) }
		s.AloneP50, s.AloneP99, s.UnderP50, s.UnderP99 = ms(s.alone, 0.5), ms(s.alone, 0.99), ms(s.under, 0.5),
			ms(s.under, 0.99)
		s.Ratio, s.Cores = round(s.UnderP99/s.AloneP99, 2), round(s.cpu.Seconds()/s.took.Seconds(), 2)
		mark := "√"
		if s.Ratio > 2 {
			mark = "×"
		}
		fmt.Fprintf(t, "%s\t%s\t%.1f ms\t%.1f ms\t%.1f ms\t%.1f ms\t%.2f\t%.2f cores\t%d\n", mark, s.Attack, s.AloneP50,
			s.AloneP99, s.UnderP50, s.UnderP99, s.Ratio, s.Cores, s.Requests)
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print the table: %w", err)
	}
	out, err := json.Marshal(all)
	if err != nil {
		return fmt.Errorf("print the figures: %w", err)
	}
	fmt.Printf("\n%s\n", out)
	return nil
}
