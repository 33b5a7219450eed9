package main

import (
	"context"
	"fmt"
	"time"

	"isthmus.dev/isthmus/bench/load"
	"isthmus.dev/isthmus/bench/proc"
)

// sample is what one protocol over one shape showed in one round.
type sample struct {
	open, closed       load.Result
	openCPU, closedCPU time.Duration // of the Envoys, a call
	agentCPU           time.Duration // of the agents, a call of the open loop
	rss                int           // KB, of the Envoys together, at the end
}

// measure runs both loops once.
func measure(ctx context.Context, o options, r *running, p protocol) (s sample, err error) {
	cfg := load.Config{
		Connections: o.connections, Duration: o.duration, WarmUp: o.duration / 5, Rate: o.rate,
		Dial: func(ctx context.Context) (load.Caller, error) {
			return p.call(ctx, r.caller.Dial, r.target(p), r.host(p))
		},
	}
	agents, err := cpu(r.agents)
	if err != nil {
		return s, err
	}
	if s.open, s.openCPU, err = r.loop(ctx, cfg, load.Open); err != nil {
		return s, fmt.Errorf("open loop: %w", err)
	}
	after, err := cpu(r.agents)
	if err != nil {
		return s, err
	}
	s.agentCPU = (after - agents) / time.Duration(max(s.open.Made, 1))
	if s.closed, s.closedCPU, err = r.loop(ctx, cfg, load.Closed); err != nil {
		return s, fmt.Errorf("closed loop: %w", err)
	}
	for _, pid := range r.envoys {
		u, err := proc.Read(pid)
		if err != nil {
			return s, err
		}
		s.rss += u.RSS
	}
	return s, nil
}

// loop runs one loop and tells what a call costs the Envoys.
func (r *running) loop(ctx context.Context, cfg load.Config, run func(context.Context, load.Config) (load.Result, error)) (load.Result, time.Duration, error) {
	before, err := cpu(r.envoys)
	if err != nil {
		return load.Result{}, 0, err
	}
	result, err := run(ctx, cfg)
	if err != nil {
		return result, 0, err
	}
	after, err := cpu(r.envoys)
	return result, (after - before) / time.Duration(max(result.Made, 1)), err
}

func cpu(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		used, err := proc.CPU(pid)
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}
