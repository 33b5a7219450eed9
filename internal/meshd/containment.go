package meshd

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// Bounds on what is written of the quarantines of one node: it has them by its own word, and events are kept for long.
const (
	maxQuarantineEvents = 100                     // at once
	quarantineRate      = rate.Limit(1.0 / 3_600) // in a second, after that
	maxQuarantineLines  = 50                      // of the log, for one change
)

// recordRates bound what is recorded of one node's quarantines: each of them, and that there are more.
type recordRates struct{ events, more *rate.Limiter }

// containment brings a proxy that crashes on its configuration back on the last one that it lived with, finds the
// objects that it cannot live with, crashing or refusing, and keeps them closed there until they change. What an agent
// says of its Envoy decides about that Envoy's own configuration and no other.
type containment struct {
	d    *Daemon
	log  *slog.Logger
	wake chan struct{} // a search may be due

	mu      sync.Mutex // guards all below
	wards   map[string]*ward
	nodes   map[string]*searchedNode
	crashes map[string]map[string]int // by node and proxy, as its agent counts them
	changed bool                      // what proxies should be told, since the last plans

	recorded map[string]*recordRates // by node
}

// plan is what a proxy is told otherwise than others.
type plan struct {
	config *snapshot.Config // an earlier one that it is held on; nil for the newest
	closed []snapshot.Key   // all but these
}

func newContainment(ctx context.Context, d *Daemon) (*containment, error) {
	c := &containment{
		d: d, log: d.log, wake: make(chan struct{}, 1), wards: map[string]*ward{}, nodes: map[string]*searchedNode{},
		crashes: map[string]map[string]int{}, recorded: map[string]*recordRates{},
	}
	kept, err := d.db.Quarantines(ctx)
	if err != nil {
		return nil, err
	}
	for _, q := range kept {
		c.ward(q.Proxy).quarantined[q.Object] = q
	}
	return c, nil
}

// ward must be called with mu held.
func (c *containment) ward(proxy string) *ward {
	w := c.wards[proxy]
	if w == nil {
		w = &ward{quarantined: map[snapshot.Key]state.Quarantine{}}
		c.wards[proxy] = w
	}
	return w
}

// plans says which proxies are told something else than the configuration as it stands, and whether that has changed
// since the last call. An object whose content changed is released.
func (c *containment) plans(ctx context.Context, cfg *snapshot.Config) (map[string]plan, bool) {
	c.mu.Lock()
	released := c.release(cfg)
	out := map[string]plan{}
	for name, w := range c.wards {
		if w.held || w.pending || len(w.quarantined) > 0 {
			out[name] = c.planOf(w)
		}
	}
	few(out)
	changed := c.changed || len(released) > 0
	c.changed = false
	c.mu.Unlock()
	c.keep(ctx, nil, released)
	return out, changed
}

func (c *containment) planOf(w *ward) plan {
	if w.held {
		return plan{w.lived.config, w.lived.closed}
	}
	return plan{nil, sortedKeys(w.quarantined)}
}

// id tells plans apart: each is a mesh that is compiled beside the others.
func (p plan) id() string { return fmt.Sprintf("%p %q", p.config, p.closed) }

// maxPlans is how many plans one node has. Its word decides about its own proxies, and must not cost more than that.
const maxPlans = 4

// few leaves nodes that have too many plans with fewer: what is closed at one of their proxies is closed at all of
// them, and of earlier configurations only some are told.
func few(plans map[string]plan) {
	byNode := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		byNode[nodeOf(name)] = append(byNode[nodeOf(name)], name)
	}
	for _, names := range byNode {
		kinds, closed := map[string]plan{}, map[snapshot.Key]state.Quarantine{}
		for _, name := range names {
			kinds[plans[name].id()] = plans[name]
		}
		if len(kinds) <= maxPlans {
			continue
		}
		for _, name := range names {
			for _, key := range plans[name].closed {
				closed[key] = state.Quarantine{}
			}
		}
		all, held := sortedKeys(closed), map[*snapshot.Config]bool{nil: true}
		last := (*snapshot.Config)(nil)
		for _, name := range names {
			p := plan{plans[name].config, all}
			if !held[p.config] && len(held) > maxPlans {
				p.config = last
			}
			held[p.config] = true
			if p.config != nil {
				last = p.config
			}
			plans[name] = p
		}
	}
}

// nodeOf is the node of a proxy.
func nodeOf(proxy string) string {
	node, _, _ := strings.Cut(proxy, "/")
	return node
}

// release ends the quarantine of objects that are gone or say something else. It must be called with mu held.
func (c *containment) release(cfg *snapshot.Config) (released []state.Quarantine) {
	var now map[snapshot.Key]contain.Object
	content := map[snapshot.Key]string{}
	for _, w := range c.wards {
		for key, q := range w.quarantined {
			if now == nil {
				now = map[snapshot.Key]contain.Object{}
				for _, o := range contain.Objects(cfg) {
					now[o.Key] = o
				}
			}
			o, there := now[key]
			if there && content[key] == "" {
				content[key] = o.Content()
			}
			if !there || content[key] != q.Content {
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

// told notes what a proxy is told, unless it is held.
func (c *containment) told(proxy string, cfg *snapshot.Config, p plan, res *envoy.Resources) {
	id := fingerprint(res)
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.ward(proxy)
	if w.held || p.config != nil {
		return // or it fell ill since, and is told otherwise in a moment
	}
	w.pending = false
	switch {
	case w.lived != nil && w.lived.fingerprint == id:
		w.told = nil
	case w.told == nil || w.told.fingerprint != id:
		w.told = &life{config: cfg, closed: p.closed, fingerprint: id}
	}
}

// stands notes that a configuration means for every proxy what it is told already.
func (c *containment) stands(cfg *snapshot.Config, plans map[string]plan) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, w := range c.wards {
		p := plans[name]
		switch {
		case w.held && w.stuck != "" && w.stuckAt != cfg && w.ill == "" && !w.searching: // it may be well with what has changed
			w.ill = "it was held on an earlier configuration"
			c.poke()
		case w.held, w.pending, p.config != nil:
		case w.told != nil:
			w.told.config, w.told.closed = cfg, p.closed
		case w.lived != nil:
			w.lived.config, w.lived.closed = cfg, p.closed
		}
	}
}

// retain forgets every proxy that the mesh no longer knows.
func (c *containment) retain(ctx context.Context, known map[string]*model.Proxy) {
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
	c.keep(ctx, nil, end)
}

// keep writes down what began and ended. What cannot be written is in force all the same, until a restart.
func (c *containment) keep(ctx context.Context, add, end []state.Quarantine) {
	if len(add)+len(end) == 0 {
		return
	}
	for _, q := range add[:min(len(add), maxQuarantineLines)] {
		c.log.Error("object quarantined: the proxy cannot live with it", "proxy", q.Proxy, "object", q.Object.String(),
			"reason", q.Reason)
	}
	for _, q := range end[:min(len(end), maxQuarantineLines)] {
		c.log.Info("object released from quarantine", "proxy", q.Proxy, "object", q.Object.String())
	}
	if len(add) > maxQuarantineLines || len(end) > maxQuarantineLines {
		c.log.Error("more objects quarantined, or released, than are named here", "quarantined", len(add),
			"released", len(end))
	}
	if err := c.d.db.ChangeQuarantines(ctx, add, end); err != nil {
		c.log.Error("quarantine not kept for the next start", "error", err)
	}
	for _, e := range slices.Concat(c.events("quarantine begin", add), c.events("quarantine end", end)) {
		if err := c.d.db.Record(ctx, e); err != nil {
			c.log.Error("event not recorded", "action", e.Action, "object", e.Object, "error", err)
		}
	}
}

// events of a change, as many as each node may have on record.
func (c *containment) events(action string, qs []state.Quarantine) (out []state.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.d.now()
	for _, q := range qs {
		node := nodeOf(q.Proxy)
		rates := c.recorded[node]
		if rates == nil {
			rates = &recordRates{rate.NewLimiter(quarantineRate, maxQuarantineEvents), rate.NewLimiter(quarantineRate, 1)}
			c.recorded[node] = rates
		}
		e := state.Event{Actor: "control plane", Action: action, Object: q.Object.String(), Outcome: state.OK}
		switch {
		case rates.events.AllowN(now, 1):
			e.Detail = fmt.Sprintf("at %s: %s", q.Proxy, q.Reason)
		case rates.more.AllowN(now, 1):
			e.Object = "more objects"
			e.Detail = fmt.Sprintf("at proxies of node %s: more than are recorded, see the log of the control plane", node)
		default:
			continue
		}
		out = append(out, e)
	}
	return out
}
