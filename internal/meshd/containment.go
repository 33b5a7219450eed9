package meshd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/view"
)

const (
	wardsEvery = 500 * time.Millisecond
	// maxSearches is how many proxies are searched for at once.
	maxSearches = 2
	// searchRate bounds the searches for one proxy, after a burst.
	searchRate  = rate.Limit(1.0 / 15)
	searchBurst = 10
	// maxFailures is how often a search may fail before what has changed is closed unseen, retrySearch the pause between.
	maxFailures = 3
	retrySearch = 3 * time.Second
	// maxHeldCrashes is how often a proxy may crash on what it had lived with before that is believed to be fatal, too. One or
	// two may still be of the configuration before.
	maxHeldCrashes = 3
	// maxQuarantineEvents is how many objects are recorded that begin or end a quarantine together.
	maxQuarantineEvents = 100
)

// containment brings a proxy that crashes on its configuration back on the last one that it lived with, finds the objects
// that it cannot live with, crashing or refusing, and keeps them closed there until they change. What an agent says of its
// Envoy decides about that Envoy's own configuration and no other.
type containment struct {
	d    *Daemon
	log  *slog.Logger
	wake chan struct{} // a search may be due

	mu      sync.Mutex // guards all below
	wards   map[string]*ward
	crashes map[string]int // by proxy, as its agent counts them
	changed bool           // what proxies should be told, since the last plans
}

// ward is one proxy.
type ward struct {
	lived *life // the last configuration that it lived with; nil while none is known
	told  *life // what it was told after that; nil when it lives with that

	quarantined map[snapshot.Key]state.Quarantine

	ill         string // why a search is due, in the proxy's words; empty while it is well
	crashed     bool   // it is ill because it crashed, and not because it refuses something
	held        bool   // it is told lived again, and nothing newer
	heldCrashes int
	searching   bool
	illAgain    string // of what it fell ill while a search was under way
	cleared     string // the fingerprint of what its Envoy found nothing wrong with
	stuck       string // why no culprit can be named
	failures    int
	due         time.Time
	searches    *rate.Limiter
}

// life is a configuration as it was told to one proxy.
type life struct {
	config      *snapshot.Config
	view        *view.View
	fingerprint string
	settled     time.Time // since when all of it is acknowledged
}

// plan is what the proxy is told otherwise than others.
type plan struct {
	hold   *view.View     // this and nothing else
	closed []snapshot.Key // all but these
}

func newContainment(ctx context.Context, d *Daemon) (*containment, error) {
	c := &containment{d: d, log: d.log, wake: make(chan struct{}, 1), wards: map[string]*ward{}, crashes: map[string]int{}}
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
		w = &ward{quarantined: map[snapshot.Key]state.Quarantine{}, searches: rate.NewLimiter(searchRate, searchBurst)}
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
		if w.held || len(w.quarantined) > 0 {
			p := plan{closed: sortedKeys(w.quarantined)}
			if w.held {
				p.hold = w.lived.view
			}
			out[name] = p
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

// told notes what a proxy is told.
func (c *containment) told(proxy string, cfg *snapshot.Config, v *view.View, res *envoy.Resources) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ward(proxy).told = &life{config: cfg, view: v, fingerprint: fingerprint(res)}
}

// stands notes that a configuration means for every proxy what it is told already.
func (c *containment) stands(cfg *snapshot.Config) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.wards {
		switch {
		case w.held:
			if w.stuck != "" && w.ill == "" && !w.searching { // something has changed: it may be well with that
				w.ill = w.stuck
				c.poke()
			}
		case w.told != nil:
			w.told.config = cfg
		case w.lived != nil:
			w.lived.config = cfg
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
			delete(c.crashes, name)
		}
	}
	c.mu.Unlock()
	c.keep(ctx, nil, end)
}

// poke says that a search may be due. It never blocks.
func (c *containment) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// reported takes in how a node's Envoys are.
func (c *containment) reported(node string, r *agentapi.Report) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(r.Sidecars) == 0 {
		c.count(node, r.Envoy)
	}
	for workload, s := range r.Sidecars {
		c.count(node+"/"+workload, s)
	}
}

// count takes in how often an agent has seen its Envoy crash. It must be called with mu held.
func (c *containment) count(proxy string, s agentapi.EnvoyState) {
	w := c.wards[proxy]
	if w == nil {
		return
	}
	before, known := c.crashes[proxy]
	c.crashes[proxy] = s.Crashes
	if known && s.Crashes > before {
		c.crash(w, "Envoy ended: "+s.LastCrash)
	}
}

// crash must be called with mu held.
func (c *containment) crash(w *ward, how string) {
	switch {
	case w.held:
		if w.heldCrashes++; w.heldCrashes < maxHeldCrashes {
			return
		}
		w.lived, w.held, w.heldCrashes = nil, false, 0
	case w.told == nil && w.lived == nil:
		return // it was told nothing
	case w.told == nil:
		w.told, w.lived = w.lived, nil // it may have been something else: if it goes on with that, it was
		w.told.settled = time.Time{}
		return
	case w.lived != nil:
		w.held, w.told = true, nil
	}
	c.changed = true
	w.fallIll(how, true)
	c.poke()
	c.d.loop.again()
}

// refused takes in that a proxy refuses something: Envoy keeps the resource as it was before, and takes the others.
func (c *containment) refused(proxy, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.wards[proxy]
	if w == nil || w.held {
		return
	}
	if w.told == nil {
		w.told, w.lived = w.lived, nil
	}
	if w.told == nil || w.told.fingerprint == w.cleared {
		return // its Envoy finds nothing wrong with it: the cause is at the host
	}
	w.told.settled = time.Time{}
	w.fallIll("Envoy refuses "+cut(reason), false)
	c.poke()
}

func (w *ward) fallIll(why string, crashed bool) {
	w.crashed = w.crashed || crashed
	if w.searching {
		w.illAgain = why
	} else if w.ill == "" {
		w.ill = why
	}
}

// run looks who lives with what, and searches for those who are ill.
func (c *containment) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxSearches + 1)
	g.Go(func() error {
		tick := time.NewTicker(wardsEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			case <-c.wake:
			}
			c.promote(c.d.now())
			for _, name := range c.due(c.d.now()) {
				if !g.TryGo(func() error { c.search(ctx, name); return nil }) {
					c.postpone(name)
				}
			}
		}
	})
	return g.Wait()
}

// promote notes who lives with what it was told.
func (c *containment) promote(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, w := range c.wards {
		switch {
		case w.told == nil || w.held || w.ill != "" || w.searching:
		case !c.d.xds.Settled(name):
			w.told.settled = time.Time{}
		case w.told.settled.IsZero():
			w.told.settled = now
		case now.Sub(w.told.settled) >= c.d.livedAfter:
			w.lived, w.told = w.told, nil
			w.crashed, w.cleared, w.stuck, w.failures, w.heldCrashes = false, "", "", 0, 0
		}
	}
}

// due marks those whose search begins now.
func (c *containment) due(now time.Time) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	under := 0
	for _, w := range c.wards {
		if w.searching {
			under++
		}
	}
	for name, w := range c.wards {
		if w.ill != "" && !w.searching && !now.Before(w.due) && under < maxSearches && w.searches.AllowN(now, 1) {
			w.searching = true
			under++
			names = append(names, name)
		}
	}
	return names
}

// postpone a search for which there is no room yet.
func (c *containment) postpone(proxy string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.wards[proxy]; w != nil {
		w.searching, w.due = false, c.d.now().Add(wardsEvery)
	}
}

// search for the culprits of one proxy, and close them.
func (c *containment) search(ctx context.Context, proxy string) {
	p := c.d.loop.published.Load()
	if p == nil {
		c.postpone(proxy)
		return
	}
	c.mu.Lock()
	w := c.wards[proxy]
	if w == nil {
		c.mu.Unlock()
		return
	}
	s := &search{proxy: proxy, snap: p.snapshot, build: c.d.build, try: c.d.agents.trials.try, suspects: c.elsewhere(proxy), closed: sortedKeys(w.quarantined)}
	if w.lived != nil {
		s.lived = w.lived.config
	}
	why := w.ill
	c.mu.Unlock()
	c.log.Warn("proxy is contained, looking for the cause", "proxy", proxy, "reason", why)
	began := time.Now()
	out, err := s.run(ctx)
	if ctx.Err() != nil {
		return
	}
	c.conclude(ctx, w, s, out, err)
	c.log.Info("search ended", "proxy", proxy, "took", time.Since(began).Round(time.Millisecond).String(), "culprits", len(out.culprits), "error", err)
}

// elsewhere are the objects that other proxies could not live with. It must be called with mu held.
func (c *containment) elsewhere(proxy string) func(contain.Object) bool {
	type content struct {
		key  snapshot.Key
		hash string
	}
	known := map[content]bool{}
	keys := map[snapshot.Key]bool{}
	for name, w := range c.wards {
		if name == proxy {
			continue
		}
		for key, q := range w.quarantined {
			known[content{key, q.Content}], keys[key] = true, true
		}
	}
	return func(o contain.Object) bool { return keys[o.Key] && known[content{o.Key, o.Content()}] }
}

// conclude acts on the outcome of a search.
func (c *containment) conclude(ctx context.Context, w *ward, s *search, out outcome, err error) {
	now := c.d.now()
	changes := s.candidates(contain.Changed(s.lived, s.snap.Config))
	c.mu.Lock()
	why, unseen := w.ill, false
	w.searching = false
	switch {
	case errors.Is(err, contain.ErrNotAmong):
		w.stuck, w.ill = why+": closing every object does not help, "+s.words, ""
	case err != nil:
		if w.failures++; w.failures < maxFailures {
			w.due = now.Add(retrySearch)
			c.mu.Unlock()
			return
		}
		unseen = true
		w.stuck = why + ": " + err.Error()
	case out.lives != "" && out.lives == w.cleared && w.crashed: // for the second time
		unseen = true
		w.stuck = why + ", though it finds nothing wrong with its configuration"
	case out.lives != "":
		w.cleared, w.ill, w.held = out.lives, "", false
	}
	if unseen {
		w.ill = ""
		if s.lived != nil && len(changes) > 0 { // one of these it is
			out = outcome{culprits: changes, words: w.stuck, whole: true}
			w.stuck = ""
		}
	}
	if len(out.culprits) > 0 {
		w.ill, w.stuck, w.held = "", "", false
	}
	var add []state.Quarantine
	for _, o := range out.culprits {
		q := state.Quarantine{Proxy: s.proxy, Object: o.Key, Content: o.Content(), Reason: reasonFor(why, out), Since: now}
		w.quarantined[o.Key] = q
		add = append(add, q)
	}
	if w.ill == "" {
		w.failures, w.heldCrashes, w.crashed = 0, 0, w.crashed && w.cleared != ""
	}
	if w.illAgain != "" {
		w.ill, w.illAgain = w.illAgain, ""
	}
	c.changed = true
	c.mu.Unlock()
	c.keep(ctx, add, nil)
	c.d.loop.again()
}

func reasonFor(why string, out outcome) string {
	reason := why
	if out.words != "" {
		reason += " (" + out.words + ")"
	}
	if out.whole {
		reason += "; it is one of several that may be the cause"
	}
	return reason
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
