// Package containment handles proxies whose Envoy crashes on its configuration or rejects it. It puts such a proxy back
// on a good configuration, finds the objects that cause the failure, and closes them for that proxy only.
package containment

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"isthmus.dev/isthmus/internal/compile"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/view"
)

// Limits on recorded quarantines of one node. They depend on the node's own reports, and events are kept for long.
const (
	maxQuarantineEvents = 100                     // burst
	quarantineRate      = rate.Limit(1.0 / 3_600) // per second after that
	maxQuarantineLines  = 50                      // log lines for one change
)

// recordRates limits the records about one node: single quarantines, and notes that there are more.
type recordRates struct{ events, more *rate.Limiter }

// State stores quarantines and records them as events.
type State interface {
	Quarantines(context.Context) ([]state.Quarantine, error)
	ChangeQuarantines(ctx context.Context, begin, end []state.Quarantine) error
	Record(context.Context, state.Event) error
}

// Config of a Containment. All fields are required.
type Config struct {
	State State
	// Settled reports whether a proxy has acknowledged everything that it was sent.
	Settled func(proxy string) bool
	// Try asks a proxy's agent whether its Envoy accepts these resources. A contain.Refusal is Envoy's answer; any
	// other error means that there is none.
	Try func(ctx context.Context, proxy string, resources []*envoy.Resource) error
	// Build builds a proxy's resources from its view and the configuration that the view was compiled from.
	Build func(*view.View, *snapshot.Config) *envoy.Resources
	// Contained receives the list of contained proxies.
	Contained func([]snapshot.Contained)
	// StableAfter is how long a proxy must run after it has acknowledged a whole configuration for that to count as
	// good.
	StableAfter time.Duration
	Log         *slog.Logger
	Now         func() time.Time
}

// Containment puts a proxy that crashes on its configuration back on its last good one, finds the objects that make it
// crash or that it rejects, and keeps them closed for it until they change. A report about an Envoy affects only that
// Envoy's configuration.
type Containment struct {
	Config
	wake    chan struct{} // a search may be due
	changes chan struct{}
	kept    chan struct{} // something must be stored

	writing sync.Mutex // held during writes, to keep their order; taken before mu
	telling sync.Mutex // held during calls of Contained, so that they are in order; taken before mu

	mu        sync.Mutex // guards the fields below
	published *compile.Compiled
	wards     map[string]*proxyState
	nodes     map[string]*searchedNode
	crashes   map[string]map[string]int // by node and proxy, as counted by its agent
	changed   bool                      // plans have changed since the last call of Plans

	recorded  map[string]*recordRates // by node
	unwritten []change                // to be stored
}

// Plan is how a proxy's configuration differs from that of the others.
type Plan struct {
	Config *snapshot.Config // an earlier one on which it is held; nil for the latest
	Closed []snapshot.Key   // closed objects
}

// New returns a Containment with the stored quarantines.
func New(ctx context.Context, cfg Config) (*Containment, error) {
	c := &Containment{
		Config: cfg, wake: make(chan struct{}, 1), changes: make(chan struct{}, 1), kept: make(chan struct{}, 1),
		wards: map[string]*proxyState{},
		nodes: map[string]*searchedNode{}, crashes: map[string]map[string]int{}, recorded: map[string]*recordRates{},
	}
	kept, err := c.State.Quarantines(ctx)
	if err != nil {
		return nil, err
	}
	for _, q := range kept {
		c.proxy(q.Proxy).quarantined[q.Object] = q
	}
	c.publish()
	return c, nil
}

// Reload loads what another control plane has quarantined or released.
func (c *Containment) Reload(ctx context.Context) error {
	c.write(ctx) // what this process has not stored yet
	kept, err := c.State.Quarantines(ctx)
	if err != nil {
		return err
	}
	now := map[string]map[snapshot.Key]state.Quarantine{}
	for _, q := range kept {
		if now[q.Proxy] == nil {
			now[q.Proxy] = map[snapshot.Key]state.Quarantine{}
		}
		now[q.Proxy][q.Object] = q
	}
	c.mu.Lock()
	for proxy := range now {
		c.proxy(proxy)
	}
	for proxy, w := range c.wards {
		if maps.Equal(w.quarantined, now[proxy]) {
			continue
		}
		w.quarantined = now[proxy]
		if w.quarantined == nil {
			w.quarantined = map[snapshot.Key]state.Quarantine{}
		}
		w.pending = true
	}
	c.mu.Unlock()
	c.publish()
	c.again()
	return nil
}

// Changed receives a value when the configuration of some proxy must change.
func (c *Containment) Changed() <-chan struct{} { return c.changes }

func (c *Containment) again() {
	select {
	case c.changes <- struct{}{}:
	default:
	}
}

// Published records what is in effect now.
func (c *Containment) Published(now *compile.Compiled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published = now
}

// AllStable reports whether every proxy's last configuration counts as good.
func (c *Containment) AllStable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wards {
		if w.lastGood == nil || w.onTrial != nil {
			return false
		}
	}
	return len(c.wards) > 0
}

// proxy must be called with mu held.
func (c *Containment) proxy(proxy string) *proxyState {
	w := c.wards[proxy]
	if w == nil {
		w = &proxyState{quarantined: map[snapshot.Key]state.Quarantine{}}
		c.wards[proxy] = w
	}
	return w
}

// Release ends the quarantine of objects that were removed or changed.
func (c *Containment) Release(cfg *snapshot.Config) {
	c.mu.Lock()
	released := c.release(cfg)
	c.changed = c.changed || len(released) > 0
	c.mu.Unlock()
	if len(released) > 0 {
		c.keep(nil, released)
		c.publish()
	}
}

// Plans returns the proxies whose configuration differs, and whether the plans have changed since the last call.
func (c *Containment) Plans() (plans map[string]Plan, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	plans = map[string]Plan{}
	for name, w := range c.wards {
		if w.held || w.pending || len(w.quarantined) > 0 {
			plans[name] = c.planOf(w)
		}
	}
	limitPlans(plans)
	changed, c.changed = c.changed, false
	return plans, changed
}

func (c *Containment) planOf(w *proxyState) Plan {
	if w.held {
		return Plan{w.lastGood.config, w.lastGood.closed}
	}
	return Plan{nil, sortedKeys(w.quarantined)}
}

// ID identifies equal plans. Each plan is compiled to a mesh of its own.
func (p Plan) ID() string { return fmt.Sprintf("%p %q", p.Config, p.Closed) }

// maxPlans limits the plans of one node. Its reports affect only its own proxies, and must not cost more than that.
const maxPlans = 4

// limitPlans merges the plans of nodes that have too many: what is closed for one of their proxies is closed for all,
// and only some earlier configurations are used.
func limitPlans(plans map[string]Plan) {
	byNode := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		byNode[model.NodeOfProxy(name)] = append(byNode[model.NodeOfProxy(name)], name)
	}
	for _, names := range byNode {
		kinds, closed := map[string]Plan{}, map[snapshot.Key]state.Quarantine{}
		for _, name := range names {
			kinds[plans[name].ID()] = plans[name]
		}
		if len(kinds) <= maxPlans {
			continue
		}
		for _, name := range names {
			for _, key := range plans[name].Closed {
				closed[key] = state.Quarantine{}
			}
		}
		all, held := sortedKeys(closed), map[*snapshot.Config]bool{nil: true}
		last := (*snapshot.Config)(nil)
		for _, name := range names {
			p := Plan{plans[name].Config, all}
			if !held[p.Config] && len(held) > maxPlans {
				p.Config = last
			}
			held[p.Config] = true
			if p.Config != nil {
				last = p.Config
			}
			plans[name] = p
		}
	}
}

// release ends the quarantine of objects that were removed or changed. It must be called with mu held.
func (c *Containment) release(cfg *snapshot.Config) (released []state.Quarantine) {
	for _, w := range c.wards {
		for key, q := range w.quarantined {
			if o := cfg.Objects.Get(key); o == nil || o.Hash.String() != q.Content {
				delete(w.quarantined, key)
				released = append(released, q)
			}
		}
	}
	return released
}

func sortedKeys(m map[snapshot.Key]state.Quarantine) []snapshot.Key {
	return slices.SortedFunc(maps.Keys(m), snapshot.Key.Compare)
}

// Sent records what a proxy is sent, unless it is held.
func (c *Containment) Sent(proxy string, cfg *snapshot.Config, p Plan, res *envoy.Resources) {
	id := fingerprint(res)
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.proxy(proxy)
	if w.held || p.Config != nil {
		return // or it has failed since, and will be sent something else
	}
	w.pending = false
	switch {
	case w.lastGood != nil && w.lastGood.fingerprint == id:
		w.onTrial = nil
	case w.onTrial == nil || w.onTrial.fingerprint != id:
		w.onTrial = &sentConfig{config: cfg, closed: p.Closed, fingerprint: id}
	}
}

// Unchanged records that a configuration gives every proxy what it already has.
func (c *Containment) Unchanged(cfg *snapshot.Config, plans map[string]Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, w := range c.wards {
		p := plans[name]
		switch {
		// it may accept the changed configuration
		case w.held && w.stuck != "" && w.stuckAt != cfg && w.failure == "" && !w.searching:
			w.failure = "it was held on an earlier configuration"
			c.poke()
		case w.held, w.pending, p.Config != nil:
		case w.onTrial != nil:
			w.onTrial.config, w.onTrial.closed = cfg, p.Closed
		case w.lastGood != nil:
			w.lastGood.config, w.lastGood.closed = cfg, p.Closed
		}
	}
}

// Retain forgets proxies that the mesh no longer knows.
func (c *Containment) Retain(known map[string]*model.Proxy) {
	c.mu.Lock()
	var end []state.Quarantine
	for name, w := range c.wards {
		if known[name] == nil {
			end = slices.AppendSeq(end, maps.Values(w.quarantined))
			delete(c.wards, name)
		}
	}
	maps.DeleteFunc(c.crashes, func(name string, _ map[string]int) bool { return known[name] == nil })
	maps.DeleteFunc(c.nodes, func(name string, n *searchedNode) bool { return known[name] == nil && !n.under })
	c.mu.Unlock()
	c.keep(nil, end)
	c.publish()
}

// keep queues added and ended quarantines for Run to store, so that nothing waits for an unavailable state. What cannot
// be stored is in effect anyway, until a restart.
func (c *Containment) keep(add, end []state.Quarantine) {
	if len(add)+len(end) == 0 {
		return
	}
	for _, q := range add[:min(len(add), maxQuarantineLines)] {
		c.Log.Error("object quarantined: the proxy cannot run with it", "proxy", q.Proxy, "object", q.Object.String(),
			"reason", q.Reason)
	}
	for _, q := range end[:min(len(end), maxQuarantineLines)] {
		c.Log.Info("object released from quarantine", "proxy", q.Proxy, "object", q.Object.String())
	}
	if len(add) > maxQuarantineLines || len(end) > maxQuarantineLines {
		c.Log.Error("more objects quarantined, or released, than are named here", "quarantined", len(add),
			"released", len(end))
	}
	c.mu.Lock()
	c.unwritten = append(c.unwritten, change{
		add, end, slices.Concat(c.events("quarantine begin", add), c.events("quarantine end", end)),
	})
	c.mu.Unlock()
	select {
	case c.kept <- struct{}{}:
	default:
	}
}

// change is a set of added and ended quarantines, with their events.
type change struct {
	add, end []state.Quarantine
	events   []state.Event
}

// write stores the queued changes in order.
func (c *Containment) write(ctx context.Context) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	changes := c.unwritten
	c.unwritten = nil
	c.mu.Unlock()
	for _, one := range changes {
		if err := c.State.ChangeQuarantines(ctx, one.add, one.end); err != nil {
			c.Log.Error("quarantine not stored for the next start", "error", err)
		}
		for _, e := range one.events {
			if err := c.State.Record(ctx, e); err != nil {
				c.Log.Error("event not recorded", "action", e.Action, "object", e.Object, "error", err)
			}
		}
	}
}

// events returns the events of a change, within the limits of each node.
func (c *Containment) events(action string, qs []state.Quarantine) (out []state.Event) {
	now := c.Now()
	for _, q := range qs {
		node := model.NodeOfProxy(q.Proxy)
		rates := c.recorded[node]
		if rates == nil {
			rates = &recordRates{
				rate.NewLimiter(quarantineRate, maxQuarantineEvents),
				rate.NewLimiter(quarantineRate, 1),
			}
			c.recorded[node] = rates
		}
		e := state.Event{Actor: "control plane", Action: action, Object: q.Object.String(), Outcome: state.OK}
		switch {
		case rates.events.AllowN(now, 1):
			e.Detail = fmt.Sprintf("at %s: %s", q.Proxy, q.Reason)
		case rates.more.AllowN(now, 1):
			e.Object = "more objects"
			e.Detail = fmt.Sprintf("at proxies of node %s: more than are recorded, see the log of the control plane",
				node)
		default:
			continue
		}
		out = append(out, e)
	}
	return out
}
