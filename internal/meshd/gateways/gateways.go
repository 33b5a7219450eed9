// Package gateways reaches a mesh's own gateways, and knows which of them lead back to the control plane.
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
	// homeEvery is how often each gateway is asked to lead back here, homeTime how long it may take to.
	homeEvery = 2 * time.Second
	homeTime  = 2 * time.Second
	// enoughFailures in a row, and a gateway counts as silent; one that never answered does so at once.
	enoughFailures = 2
	// agentGrace is how long a gateway's agent may be away, to be replaced for example.
	agentGrace = 5 * time.Second
	// readyTime is how long peering waits for a gateway that leads here: it may have joined a moment ago.
	readyTime  = 5 * time.Second
	readyRetry = 200 * time.Millisecond
)

// Config of a Watch. All fields are needed.
type Config struct {
	// Dialer reaches gateways.
	Dialer Dialer
	// Home has a gateway lead back to this control plane: nil, or what is in the way.
	Home func(context.Context, federation.Gateway) error
	// Reports are what connected agents last said, by node.
	Reports func() map[string]agentapi.Report
	// SetSilent takes in which gateways are silent, sorted.
	SetSilent func([]string)
	Now       func() time.Time
}

// Watch knows which of the mesh's own gateways answer, and lead back to this control plane.
type Watch struct {
	Config

	mu    sync.Mutex // guards roads
	roads map[string]road
}

// road is what is known of a gateway.
type road struct {
	answered bool      // ever
	failures int       // in a row, of reaching it
	away     time.Time // since when its agent is; zero: it is connected
}

// New makes a Watch.
func New(c Config) *Watch { return &Watch{Config: c, roads: map[string]road{}} }

// Run asks all gateways again and again, until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	retry.Every(ctx, homeEvery, w.look)
	return nil
}

// look asks each gateway once, all at a time, and has those that are silent known.
func (w *Watch) look(ctx context.Context) {
	errs := w.Roads(ctx)
	if ctx.Err() != nil {
		return
	}
	connected := w.Reports()
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.Now()
	maps.DeleteFunc(w.roads, func(name string, _ road) bool { _, known := errs[name]; return !known })
	for name, err := range errs {
		_, here := connected[name]
		w.roads[name] = w.roads[name].next(!federation.IsGatewaySilent(err), here, now)
	}
	w.SetSilent(silent(w.roads, now))
}

// next is what is known after one more look.
func (r road) next(answers, agentHere bool, now time.Time) road {
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

// silent are the gateways that nobody should be led to while another is there, sorted.
func silent(roads map[string]road, now time.Time) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(roads)) {
		r := roads[name]
		if r.failures >= enoughFailures || r.failures > 0 && !r.answered || !r.away.IsZero() &&
			now.Sub(r.away) >= agentGrace {
			out = append(out, name)
		}
	}
	return out
}

// Roads has each gateway lead back here, all at a time: nil, or what is in the way, by gateway.
func (w *Watch) Roads(ctx context.Context) map[string]error {
	ctx, cancel := context.WithTimeout(ctx, homeTime)
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

// errElsewhere are addresses of a gateway that its host does not have.
type errElsewhere []netip.Addr

func (e errElsewhere) Error() string { return "its host has no address " + listed(e) }

// Ready refuses a peering that cannot come about, because no gateway leads here. Whether there is one at all is asked
// elsewhere.
func (w *Watch) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for {
		errs := w.Roads(ctx)
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
			c := CheckRoad(snap, n, err)
			all = append(all, fmt.Sprintf("%s %s: %s", c.Name, c.Detail, c.Remedy))
		}
	}
	return fmt.Errorf("no peer's control plane could reach this mesh's: %s (isthmus check)", strings.Join(all, "; "))
}

// CheckRoad says whether what peers' control planes say can pass a gateway.
func CheckRoad(snap *snapshot.Snapshot, n snapshot.Node, err error) adminapi.Check {
	c := adminapi.Check{Name: "gateway " + n.Name, State: "ok"}
	control, inner := listed(snap.ControlOf(n)), listed(n.Gateway.Inner())
	switch {
	case err == nil:
		c.Detail = fmt.Sprintf("answers at %s, and reaches the control plane at %s", inner, control)
	case control == "":
		c.State = "failed"
		c.Detail = "does not know where to send what peers say: its agent has not reached the control plane by an " +
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
