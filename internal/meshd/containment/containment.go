// Package containment keeps an Envoy going that cannot live with its configuration: it is brought back, and the objects
// that are the cause are found and closed there, and nowhere else.
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

// Bounds on what is written of the quarantines of one node: it has them by its own word, and events are kept for long.
const (
	maxQuarantineEvents = 100                     // at once
	quarantineRate      = rate.Limit(1.0 / 3_600) // in a second, after that
	maxQuarantineLines  = 50                      // of the log, for one change
)

// recordRates bound what is recorded of one node's quarantines: each of them, and that there are more.
type recordRates struct{ events, more *rate.Limiter }

// State keeps what is in quarantine, and records it.
type State interface {
	Quarantines(context.Context) ([]state.Quarantine, error)
	ChangeQuarantines(ctx context.Context, begin, end []state.Quarantine) error
	Record(context.Context, state.Event) error
}

// Config of a Containment. All fields are needed.
type Config struct {
	State State
	// Settled says whether a proxy has acknowledged all that it was told.
	Settled func(proxy string) bool
	// Try asks a proxy's agent whether its Envoy could live with these resources: a contain.Refusal is why not, any
	// other error says that there is no verdict.
	Try func(ctx context.Context, proxy string, resources []*envoy.Resource) error
	// Build makes what a proxy is told, of what its view was compiled from.
	Build func(*view.View, *snapshot.Config) *envoy.Resources
	// Contained takes in which proxies cannot live with the configuration.
	Contained func([]snapshot.Contained)
	// LivedAfter is how long a proxy must have gone on with a configuration, after it acknowledged all of it, to have
	// lived with it.
	LivedAfter time.Duration
	Log        *slog.Logger
	Now        func() time.Time
}

// Containment brings a proxy that crashes on its configuration back on the last one that it lived with, finds the
// objects that it cannot live with, crashing or refusing, and keeps them closed there until they change. What an agent
// says of its Envoy decides about that Envoy's own configuration and no other.
type Containment struct {
	Config
	wake    chan struct{} // a search may be due
	changes chan struct{}
	kept    chan struct{} // there is something to be written

	writing sync.Mutex // held while it is written, in order; taken before mu
	telling sync.Mutex // held while Contained is told, so that the newest comes last; taken before mu

	mu        sync.Mutex // guards all below
	published *compile.Compiled
	wards     map[string]*ward
	nodes     map[string]*searchedNode
	crashes   map[string]map[string]int // by node and proxy, as its agent counts them
	changed   bool                      // what proxies should be told, since the last plans

	recorded  map[string]*recordRates // by node
	unwritten []change                // what is to be kept
}

// Plan is what a proxy is told otherwise than others.
type Plan struct {
	Config *snapshot.Config // an earlier one that it is held on; nil for the newest
	Closed []snapshot.Key   // all but these
}

// New makes a Containment with what was in quarantine before.
func New(ctx context.Context, cfg Config) (*Containment, error) {
	c := &Containment{
		Config: cfg, wake: make(chan struct{}, 1), changes: make(chan struct{}, 1), kept: make(chan struct{}, 1),
		wards: map[string]*ward{},
		nodes: map[string]*searchedNode{}, crashes: map[string]map[string]int{}, recorded: map[string]*recordRates{},
	}
	kept, err := c.State.Quarantines(ctx)
	if err != nil {
		return nil, err
	}
	for _, q := range kept {
		c.ward(q.Proxy).quarantined[q.Object] = q
	}
	c.tell()
	return c, nil
}

// Reload takes in what another control plane has put into quarantine, or released.
func (c *Containment) Reload(ctx context.Context) error {
	c.write(ctx) // which another one does not know of
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
		c.ward(proxy)
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
	c.tell()
	c.again()
	return nil
}

// Changed has a value whenever what some proxy is to be told has changed by itself.
func (c *Containment) Changed() <-chan struct{} { return c.changes }

func (c *Containment) again() {
	select {
	case c.changes <- struct{}{}:
	default:
	}
}

// Published notes what is in force now.
func (c *Containment) Published(now *compile.Compiled) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published = now
}

// Lived says whether every proxy has lived with what it was told last.
func (c *Containment) Lived() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wards {
		if w.lived == nil || w.told != nil {
			return false
		}
	}
	return len(c.wards) > 0
}

// ward must be called with mu held.
func (c *Containment) ward(proxy string) *ward {
	w := c.wards[proxy]
	if w == nil {
		w = &ward{quarantined: map[snapshot.Key]state.Quarantine{}}
		c.wards[proxy] = w
	}
	return w
}

// Release ends the quarantine of objects that are gone or say something else.
func (c *Containment) Release(cfg *snapshot.Config) {
	c.mu.Lock()
	released := c.release(cfg)
	c.changed = c.changed || len(released) > 0
	c.mu.Unlock()
	if len(released) > 0 {
		c.keep(nil, released)
		c.tell()
	}
}

// Plans says which proxies are told something else than the configuration as it stands, and whether that has changed
// since the last call.
func (c *Containment) Plans() (plans map[string]Plan, changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	plans = map[string]Plan{}
	for name, w := range c.wards {
		if w.held || w.pending || len(w.quarantined) > 0 {
			plans[name] = c.planOf(w)
		}
	}
	few(plans)
	changed, c.changed = c.changed, false
	return plans, changed
}

func (c *Containment) planOf(w *ward) Plan {
	if w.held {
		return Plan{w.lived.config, w.lived.closed}
	}
	return Plan{nil, sortedKeys(w.quarantined)}
}

// ID tells plans apart: each is a mesh that is compiled beside the others.
func (p Plan) ID() string { return fmt.Sprintf("%p %q", p.Config, p.Closed) }

// maxPlans is how many plans one node has. Its word decides about its own proxies, and must not cost more than that.
const maxPlans = 4

// few leaves nodes that have too many plans with fewer: what is closed at one of their proxies is closed at all of
// them, and of earlier configurations only some are told.
func few(plans map[string]Plan) {
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

// release ends the quarantine of objects that are gone or say something else. It must be called with mu held.
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

// Told notes what a proxy is told, unless it is held.
func (c *Containment) Told(proxy string, cfg *snapshot.Config, p Plan, res *envoy.Resources) {
	id := fingerprint(res)
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.ward(proxy)
	if w.held || p.Config != nil {
		return // or it fell ill since, and is told otherwise in a moment
	}
	w.pending = false
	switch {
	case w.lived != nil && w.lived.fingerprint == id:
		w.told = nil
	case w.told == nil || w.told.fingerprint != id:
		w.told = &life{config: cfg, closed: p.Closed, fingerprint: id}
	}
}

// Stands notes that a configuration means for every proxy what it is told already.
func (c *Containment) Stands(cfg *snapshot.Config, plans map[string]Plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, w := range c.wards {
		p := plans[name]
		switch {
		// it may be well with what has changed
		case w.held && w.stuck != "" && w.stuckAt != cfg && w.ill == "" && !w.searching:
			w.ill = "it was held on an earlier configuration"
			c.poke()
		case w.held, w.pending, p.Config != nil:
		case w.told != nil:
			w.told.config, w.told.closed = cfg, p.Closed
		case w.lived != nil:
			w.lived.config, w.lived.closed = cfg, p.Closed
		}
	}
}

// Retain forgets every proxy that the mesh no longer knows.
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
	c.tell()
}

// keep has what began and ended written down, by Run: nobody waits for a state that is away. What cannot be written is
// in force all the same, until a restart.
func (c *Containment) keep(add, end []state.Quarantine) {
	if len(add)+len(end) == 0 {
		return
	}
	for _, q := range add[:min(len(add), maxQuarantineLines)] {
		c.Log.Error("object quarantined: the proxy cannot live with it", "proxy", q.Proxy, "object", q.Object.String(),
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

// change is what began and what ended, and what is recorded of it.
type change struct {
	add, end []state.Quarantine
	events   []state.Event
}

// write writes what is to be kept, one change after the other.
func (c *Containment) write(ctx context.Context) {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.mu.Lock()
	changes := c.unwritten
	c.unwritten = nil
	c.mu.Unlock()
	for _, one := range changes {
		if err := c.State.ChangeQuarantines(ctx, one.add, one.end); err != nil {
			c.Log.Error("quarantine not kept for the next start", "error", err)
		}
		for _, e := range one.events {
			if err := c.State.Record(ctx, e); err != nil {
				c.Log.Error("event not recorded", "action", e.Action, "object", e.Object, "error", err)
			}
		}
	}
}

// events of a change, as many as each node may have on record. It must be called with mu held.
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
