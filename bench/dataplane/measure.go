package main

import (
	"context"
	"fmt"
	"sync"
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

// measure gives a shape one turn: both loops, over the connections that it keeps from turn to turn.
func measure(ctx context.Context, o options, r *running, p protocol) (s sample, err error) {
	cfg := load.Config{
		Connections: o.connections, Duration: o.duration, Rate: o.rate,
		Dial: func(ctx context.Context) (load.Caller, error) { return r.kept.dial(ctx, r, p) },
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

// warmUp precedes each loop and is not counted. Between two turns a shape is idle for seconds, and Envoys close
// connections that are: to open them again is no part of what a call costs.
const warmUp = 50 * time.Millisecond

// loop runs one loop and tells what a call costs the Envoys.
func (r *running) loop(
	ctx context.Context, cfg load.Config, run func(context.Context, load.Config) (load.Result, error),
) (load.Result, time.Duration, error) {
	warm := cfg
	warm.Duration = warmUp
	if result, err := run(ctx, warm); err != nil || result.First != nil {
		return result, 0, err
	}
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

// pool keeps a shape's connections between its turns: a turn can then be so short that whatever else the machine does
// falls on all shapes alike.
type pool struct {
	mu   sync.Mutex // guards free
	free map[string][]load.Caller
}

func (k *pool) dial(ctx context.Context, r *running, p protocol) (load.Caller, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if list := k.free[p.Name]; len(list) > 0 {
		k.free[p.Name] = list[1:]
		return &pooledConn{Caller: list[0], pool: k, name: p.Name}, nil
	}
	c, err := p.call(ctx, r.caller.Dial, r.target(p), r.host(p))
	if err != nil {
		return nil, err
	}
	return &pooledConn{Caller: c, pool: k, name: p.Name}, nil
}

// pooledConn is a connection that returns to its pool unless a call failed on it.
type pooledConn struct {
	load.Caller
	pool   *pool
	name   string
	failed bool
}

func (c *pooledConn) Call() error {
	err := c.Caller.Call()
	c.failed = c.failed || err != nil
	return err
}

func (c *pooledConn) Close() error {
	if c.failed {
		return c.Caller.Close()
	}
	c.pool.mu.Lock()
	defer c.pool.mu.Unlock()
	if c.pool.free == nil {
		c.pool.free = map[string][]load.Caller{}
	}
	c.pool.free[c.name] = append(c.pool.free[c.name], c.Caller)
	return nil
}
