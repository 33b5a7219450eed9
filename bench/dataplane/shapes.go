package main

import (
	"context"
	"fmt"
	"time"

	"isthmus.dev/isthmus/bench/load"
	"isthmus.dev/isthmus/bench/proc"
)

// environment is what every shape finds: two hosts with a cable, a server for each protocol on the callee.
type environment struct {
	dir            string
	envoy          string
	concurrency    int
	caller, callee *host
	protocols      []protocol
}

// shape is one way from the caller to the callee.
type shape struct {
	name  string
	start func(context.Context, environment) (*running, error)
}

// running is a shape that carries calls.
type running struct {
	target func(protocol) string // what the caller dials
	envoys []*envoy
}

func (r *running) stop() {
	for _, e := range r.envoys {
		e.stop()
	}
}

// shapes lists all, in the order of the table.
// TODO(data plane figures): Isthmus sidecars, node mode and the federation boundary, once they can be started from here.
func shapes() []shape {
	return []shape{
		{"direct", startDirect},
		{"hand-written pair", startPair},
	}
}

// startDirect starts nothing: the caller dials the server.
func startDirect(_ context.Context, env environment) (*running, error) {
	return &running{target: func(p protocol) string { return port(env.callee.addr, p.App) }}, nil
}

// row is what one protocol over one shape showed.
type row struct {
	Shape, Protocol string
	Open, Closed    load.Result
	CoresPer1000    float64 // of all proxies together, at the open loop's rate
	RSS             int     // KB, of all proxies together
}

// measure runs both loops for one protocol over one running shape.
func measure(ctx context.Context, o options, env environment, r *running, p protocol) (row, error) {
	cfg := load.Config{
		Connections: o.connections, Duration: o.duration, WarmUp: o.duration / 5, Rate: o.rate,
		Dial: func(ctx context.Context) (load.Caller, error) { return p.call(ctx, env.caller.dial, r.target(p)) },
	}
	var out row
	before, err := r.usage()
	if err != nil {
		return row{}, err
	}
	start := time.Now()
	if out.Open, err = load.Open(ctx, cfg); err != nil {
		return row{}, fmt.Errorf("open loop: %w", err)
	}
	after, err := r.usage()
	if err != nil {
		return row{}, err
	}
	cores := (after.CPU - before.CPU).Seconds() / time.Since(start).Seconds()
	out.CoresPer1000 = cores * 1000 / float64(o.rate)
	if out.Closed, err = load.Closed(ctx, cfg); err != nil {
		return row{}, fmt.Errorf("closed loop: %w", err)
	}
	end, err := r.usage()
	out.RSS = end.RSS
	return out, err
}

// usage is that of all proxies together.
func (r *running) usage() (proc.Usage, error) {
	var sum proc.Usage
	for _, e := range r.envoys {
		u, err := proc.Read(e.cmd.Process.Pid)
		if err != nil {
			return sum, err
		}
		sum.CPU += u.CPU
		sum.RSS += u.RSS
		sum.PeakRSS += u.PeakRSS
	}
	return sum, nil
}
