package meshd

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// maxQuarantineEvents is how many objects are recorded that begin or end a quarantine together.
const maxQuarantineEvents = 100

// containment brings a proxy that crashes on its configuration back on the last one that it lived with, finds the objects
// that it cannot live with, crashing or refusing, and keeps them closed there until they change. What an agent says of its
// Envoy decides about that Envoy's own configuration and no other.
type containment struct {
	d    *Daemon
	log  *slog.Logger
	wake chan struct{} // a search may be due

	mu      sync.Mutex // guards all below
	wards   map[string]*ward
	nodes   map[string]*searchedNode
	crashes map[string]map[string]int // by node and proxy, as its agent counts them
	changed bool                      // what proxies should be told, since the last plans
}

// plan is what a proxy is told otherwise than others.
type plan struct {
	config *snapshot.Config // an earlier one that it is held on; nil for the newest
	closed []snapshot.Key   // all but these
}

func newContainment(ctx context.Context, d *Daemon) (*containment, error) {
	c := &containment{d: d, log: d.log, wake: make(chan struct{}, 1), wards: map[string]*ward{}, nodes: map[string]*searchedNode{}, crashes: map[string]map[string]int{}}
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

// plans says which proxies are told something else than the configuration as it stands, and whether that has changed since
// the last call. An object whose content changed is released.
func (c *containment) plans(ctx context.Context, cfg *snapshot.Config) (map[string]plan, bool) {
	c.mu.Lock()
	released := c.release(cfg)
	out := map[string]plan{}
	for name, w := range c.wards {
		switch {
		case w.held:
			out[name] = plan{w.lived.config, w.lived.closed}
		case len(w.quarantined) > 0 || w.pending:
			out[name] = plan{nil, sortedKeys(w.quarantined)}
		}
	}
	changed := c.changed || len(released) > 0
	c.changed = false
	c.mu.Unlock()
	c.keep(ctx, nil, released)
	return out, changed
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
	for _, q := range add {
		c.log.Error("object quarantined: the proxy cannot live with it", "proxy", q.Proxy, "object", q.Object.String(), "reason", q.Reason)
	}
	for _, q := range end {
		c.log.Info("object released from quarantine", "proxy", q.Proxy, "object", q.Object.String())
	}
	if err := c.d.db.ChangeQuarantines(ctx, add, end); err != nil {
		c.log.Error("quarantine not kept for the next start", "error", err)
	}
	events := slices.Concat(events("quarantine begin", add), events("quarantine end", end))
	for _, e := range events[:min(len(events), maxQuarantineEvents)] {
		if err := c.d.db.Record(ctx, e); err != nil {
			c.log.Error("event not recorded", "action", e.Action, "object", e.Object, "error", err)
		}
	}
}

func events(action string, qs []state.Quarantine) (out []state.Event) {
	for _, q := range qs {
		out = append(out, state.Event{Actor: "control plane", Action: action, Object: q.Object.String(), Outcome: state.OK, Detail: fmt.Sprintf("at %s: %s", q.Proxy, q.Reason)})
	}
	return out
}
