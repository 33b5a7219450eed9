package main

import (
	"context"
	"fmt"
	"time"

	"isthmus.dev/isthmus/bench/meshlab"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/vip"
)

// environment is what every shape finds: two namespaces outside of all meshes, and two meshes that are peers.
type environment struct {
	lab         *meshlab.Lab
	envoy       string
	concurrency int
	protocols   []protocol
	meshes      map[string]*meshlab.Running
}

// shape is one way from a caller to a callee.
type shape struct {
	name  string
	start func(context.Context, *environment) (*running, error)
}

// running is a shape that carries calls.
type running struct {
	name   string
	caller meshlab.Place
	target func(protocol) string // what the caller dials
	host   func(protocol) string // the authority that it asks for
	envoys []int                 // process ids
	agents []int
	kept   pool
}

// The shapes, in the order of the table.
const (
	direct         = "direct"
	pairByHand     = "hand-written pair"
	pairHardened   = "hand-written pair, hardened"
	isthmusPair    = "Isthmus, two nodes"
	oneByHand      = "hand-written, one Envoy"
	oneHardened    = "hand-written, one Envoy, hardened"
	isthmusOne     = "Isthmus, one node"
	acrossByHand   = "hand-written, across meshes"
	acrossHardened = "hand-written, across meshes, hardened"
	isthmusAcross  = "Isthmus, across meshes"
)

// shapes lists all of them. Hand-written Envoys speak between their two sides what the caller speaks, one connection
// for each call of HTTP/1.1 that is under way, as ours do.
func shapes() []shape {
	pair := handWritten{offset: 0, httpAtCaller: true, own: true, captured: true}
	hardened := pair
	hardened.offset, hardened.hardened = 10, true
	one := pair
	one.offset, one.one, one.handOver = 20, true, "tls"
	hardenedOne := one
	hardenedOne.offset, hardenedOne.hardened = 30, true
	return []shape{
		{direct, startDirect},
		{pairByHand, pair.start},
		{pairHardened, hardened.start},
		{isthmusPair, inMesh(twoCaller, func(protocol) string { return twoCallee }, "alpha/two-a", "alpha/two-b")},
		{oneByHand, one.start},
		{oneHardened, hardenedOne.start},
		{isthmusOne, inMesh(oneCaller, func(protocol) string { return oneCallee }, "alpha/one")},
		{acrossByHand, fourByHand{offset: 40}.start},
		{acrossHardened, fourByHand{offset: 50, hardened: true}.start},
		{isthmusAcross, inMesh(twoCaller, farName, "alpha/two-a", "alpha/gateway", "beta/gateway", "beta/far")},
	}
}

// startDirect starts nothing: the caller dials the server.
func startDirect(_ context.Context, env *environment) (*running, error) {
	return &running{
		caller: env.lab.Place(freeCaller), host: func(protocol) string { return handWrittenHost },
		target: func(p protocol) string { return port(env.lab.Place(freeCallee).Address.String(), p.App) },
	}, nil
}

// inMesh is a workload of ours that calls a service by its name; agents are "<mesh>/<node>" on the way.
func inMesh(
	caller string, service func(protocol) string, agents ...string,
) func(context.Context, *environment) (*running, error) {
	return func(ctx context.Context, env *environment) (*running, error) {
		r := &running{
			caller: env.lab.Place(caller),
			host:   func(p protocol) string { return service(p) + ".default.svc.cluster.local" },
		}
		targets := map[string]string{}
		for _, p := range env.protocols {
			err := retry.Until(ctx, 20*time.Second, 50*time.Millisecond, func(ctx context.Context) error {
				addr, err := r.caller.Lookup(ctx, r.host(p))
				if err == nil && addr == vip.Refusal { // what it may call has not come yet
					err = fmt.Errorf("%s may not call %s", caller, r.host(p))
				}
				targets[p.Name] = port(addr.String(), p.Port)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		r.target = func(p protocol) string { return targets[p.Name] }
		for _, name := range agents {
			if err := r.addAgent(env, name); err != nil {
				return nil, err
			}
		}
		return r, nil
	}
}

func (r *running) addAgent(env *environment, name string) error {
	for mesh, m := range env.meshes {
		for node, a := range m.Agents {
			if mesh+"/"+node != name {
				continue
			}
			envoy, err := a.Envoy()
			r.agents, r.envoys = append(r.agents, a.PID), append(r.envoys, envoy)
			return err
		}
	}
	return fmt.Errorf("there is no agent %s", name)
}

// answers waits until one call through the shape succeeds.
func (r *running) answers(ctx context.Context, p protocol) error {
	err := retry.Until(ctx, 20*time.Second, 50*time.Millisecond, func(ctx context.Context) error {
		c, err := p.call(ctx, r.caller.Dial, r.target(p), r.host(p))
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Call()
	})
	if err != nil {
		return fmt.Errorf("nothing answers %s at %s: %w", p.Name, r.target(p), err)
	}
	return nil
}
