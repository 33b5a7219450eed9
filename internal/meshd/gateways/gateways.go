// Package gateways connects to a mesh's own gateways, and monitors whether they lead back to the control plane.
package gateways

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/snapshot"
)

const (
	// probeEvery is how often each gateway is probed, probeTimeout how long it may take.
	probeEvery   = 2 * time.Second
	probeTimeout = 2 * time.Second
	// failureThreshold is the number of consecutive failures after which a gateway counts as silent. One that never
	// answered counts at once.
	failureThreshold = 2
	// agentGrace is how long a gateway's agent may be disconnected, to be replaced for example.
	agentGrace = 5 * time.Second
	// readyTime is how long a peering waits for a gateway that leads here, since it may have joined just now.
	readyTime  = 5 * time.Second
	readyRetry = 200 * time.Millisecond
)

// Config of a Watch. All fields are required.
type Config struct {
	// Dialer connects to gateways.
	Dialer Dialer
	// Home checks that a gateway leads back to this control plane.
	Home func(context.Context, federation.Gateway) error
	// Reports returns the last reports of connected agents, by node.
	Reports func() map[string]agentapi.Report
	// SetSilent receives the silent gateways, sorted.
	SetSilent func([]string)
	Now       func() time.Time
}

// Watch monitors which of the mesh's gateways answer and lead back to this control plane.
type Watch struct {
	Config

	mu     sync.Mutex // guards states
	states map[string]gatewayState
}

// gatewayState is the state of one gateway.
type gatewayState struct {
	answered bool      // ever
	failures int       // consecutive failures to connect
	away     time.Time // since when its agent is disconnected; zero: connected
}

// New returns a Watch.
func New(c Config) *Watch { return &Watch{Config: c, states: map[string]gatewayState{}} }

// Run probes all gateways repeatedly until ctx is done.
func (w *Watch) Run(ctx context.Context) error {
	retry.Every(ctx, probeEvery, w.probeAll)
	return nil
}

// probeAll probes all gateways once, in parallel, and publishes the silent ones.
func (w *Watch) probeAll(ctx context.Context) {
	errs := w.CheckPaths(ctx)
	if ctx.Err() != nil {
		return
	}
	connected := w.Reports()
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.Now()
	maps.DeleteFunc(w.states, func(name string, _ gatewayState) bool { _, known := errs[name]; return !known })
	for name, err := range errs {
		_, here := connected[name]
		w.states[name] = w.states[name].next(!federation.IsGatewaySilent(err), here, now)
	}
	w.SetSilent(silent(w.states, now))
}

// next returns the state after one more probe.
func (r gatewayState) next(answers, agentHere bool, now time.Time) gatewayState {
	if answers {
		r.answered, r.failures = true, 0
	} else {
		r.failures++
	}
	switch {
	case agentHere:
		r.away = time.Time{}
	case r.away.IsZero():
		r.away = now
	}
	return r
}

// silent returns the gateways to avoid while there is another one, sorted.
func silent(roads map[string]gatewayState, now time.Time) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(roads)) {
		r := roads[name]
		if r.failures >= failureThreshold || r.failures > 0 && !r.answered || !r.away.IsZero() &&
			now.Sub(r.away) >= agentGrace {
			out = append(out, name)
		}
	}
	return out
}

// CheckPaths probes all gateways in parallel. It returns nil or an error for each gateway.
func (w *Watch) CheckPaths(ctx context.Context) map[string]error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var mu sync.Mutex // guards out
	out := map[string]error{}
	var all sync.WaitGroup
	for _, g := range w.Dialer.Gateways() {
		all.Go(func() {
			err := w.Home(ctx, g)
			mu.Lock()
			defer mu.Unlock()
			out[g.Name] = err
		})
	}
	all.Wait()
	reports := w.Reports()
	for name, err := range out {
		if e := reports[name].Elsewhere; err == nil && len(e) > 0 {
			out[name] = errElsewhere(e)
		}
	}
	return out
}

// errElsewhere lists a gateway's addresses that its host does not have.
type errElsewhere []netip.Addr

func (e errElsewhere) Error() string { return "its host has no address " + listed(e) }

// Ready refuses a peering that cannot work because no gateway leads here. Whether there is a gateway at all is checked
// elsewhere.
func (w *Watch) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		errs := w.CheckPaths(ctx)
		for _, err := range errs {
			if err == nil {
				return nil
			}
		}
		if len(errs) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return notReady(w.Dialer.Snapshot(), errs)
		case <-time.After(readyRetry):
		}
	}
}

func notReady(snap *snapshot.Snapshot, errs map[string]error) error {
	var all []string
	for _, n := range snap.Registry.Nodes {
		if err := errs[n.Name]; err != nil {
			c := PathCheck(snap, n, err)
			all = append(all, fmt.Sprintf("%s %s: %s", c.Name, c.Detail, c.Remedy))
		}
	}
	return fmt.Errorf("no peer's control plane could reach this mesh's: %s (isthmus check)", strings.Join(all, "; "))
}

// PathCheck returns the result of checking the path for peers' control traffic through a gateway.
func PathCheck(snap *snapshot.Snapshot, n snapshot.Node, err error) adminapi.Check {
	c := adminapi.Check{Name: "gateway " + n.Name, State: "ok"}
	control, inner := listed(snap.ControlOf(n)), listed(n.Gateway.Inner())
	switch {
	case err == nil:
		c.Detail = fmt.Sprintf("answers at %s, and reaches the control plane at %s", inner, control)
	case control == "":
		c.State = "failed"
		c.Detail = "does not know where to send peers' control traffic: its agent has not reached the control plane by an " +
			"address that other hosts could use"
		c.Remedy = "see the log of its agent; or write the address by which gateways reach the control plane into its " +
			"settings (names: {ips: [ADDRESS]}), and start it again"
	case errors.As(err, new(errElsewhere)):
		c.State, c.Detail = "failed", "cannot listen for peers: "+err.Error()
		c.Remedy = "correct gateway.outerAddress in its settings, or give the host that address; after a correction empty its " +
			"stateDir and start it with a new token, since a gateway does not move by itself"
	case federation.IsGatewaySilent(err):
		c.State, c.Detail = "failed", "does not answer the control plane at its inner address: "+err.Error()
		c.Remedy = "see that gateway.innerAddress is an address of that host, that its agent and Envoy run, and that " +
			"no firewall keeps the control plane from its port 15444"
	default:
		c.State = "failed"
		c.Detail = fmt.Sprintf("does not reach the control plane at %s: %s", control, err)
		c.Remedy = "see that no firewall keeps it from that port; where it goes through address translation, write " +
			"the address by which gateways reach the control plane into its settings (names: {ips: [ADDRESS]}), and " +
			"start it again"
	}
	return c
}

func listed[T fmt.Stringer](list []T) string {
	var out []string
	for _, v := range list {
		out = append(out, v.String())
	}
	return strings.Join(out, ", ")
}
