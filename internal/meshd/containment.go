package meshd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
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
)

const (
	wardsEvery = 500 * time.Millisecond
	// maxSearches is how many nodes are searched for at once, one proxy of each.
	maxSearches = 4
	// searchRate bounds the searches for one node, after a burst.
	searchRate  = rate.Limit(1.0 / 10)
	searchBurst = 20
	// maxSearch bounds one search. After one that took longer than shortSearch, its node waits restFactor times as long.
	maxSearch   = time.Minute
	shortSearch = 2 * time.Second
	restFactor  = 4
	// maxFailures is how often a search may fail before what has changed is closed unseen, retrySearch the pause between.
	maxFailures = 3
	retrySearch = 3 * time.Second
	// maxHeldCrashes is how often a proxy may crash on what it had lived with before that is believed to be fatal, too. One or
	// two may still be of the configuration before.
	maxHeldCrashes = 3
	// crashPeriod is within which a second crash on what a proxy lives with counts.
	crashPeriod = time.Minute
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
	nodes   map[string]*searchedNode
	crashes map[string]map[string]int // by node and proxy, as its agent counts them
	changed bool                      // what proxies should be told, since the last plans
}

// searchedNode is what one node has had of searches. A node that lies costs little more than itself.
type searchedNode struct {
	under bool // one is under way
	rate  *rate.Limiter
	due   time.Time
}

// ward is one proxy.
type ward struct {
	lived *life // the last configuration that it lived with; nil while none is known
	told  *life // what it was told after that; nil when it lives with that

	quarantined map[snapshot.Key]state.Quarantine

	ill         string // why a search is due, in the proxy's words; empty while it is well
	crashed     bool   // it is ill because it crashed, and not because it refuses something
	held        bool   // it is told what it lived with again, and nothing newer
	heldCrashes int
	livedCrash  time.Time // when it last crashed on what it lives with
	searching   bool
	illAgain    string           // of what it fell ill while a search was under way
	cleared     string           // the fingerprint of what its Envoy found nothing wrong with
	stuck       string           // why no culprit can be named
	stuckAt     *snapshot.Config // with what
	pending     bool             // what it is to be told was decided anew, and is not published yet
	failures    int
	due         time.Time
}

// life is a configuration as it was told to one proxy.
type life struct {
	config      *snapshot.Config
	closed      []snapshot.Key // in it
	fingerprint string         // of the resources
	settled     time.Time      // since when all of them are acknowledged
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

// poke says that a search may be due. It never blocks.
func (c *containment) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// reported takes in how a node's Envoys are, and how often each has crashed since the last report.
func (c *containment) reported(node string, r *agentapi.Report) {
	now := map[string]int{node: r.Envoy.Crashes}
	how := map[string]string{node: r.Envoy.LastCrash}
	if len(r.Sidecars) > 0 {
		clear(now)
	}
	for workload, s := range r.Sidecars {
		now[node+"/"+workload], how[node+"/"+workload] = s.Crashes, s.LastCrash
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.crashes[node]
	c.crashes[node] = now
	for proxy, n := range now {
		was, known := before[proxy]
		if w := c.wards[proxy]; w != nil && known && n > was {
			c.crash(w, "Envoy ended: "+how[proxy])
		}
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
	case w.told == nil: // of what it had lived with: something else may have been the cause
		now := c.d.now()
		before := w.livedCrash
		if w.livedCrash = now; now.Sub(before) > crashPeriod {
			return
		}
		w.lived = nil
	case w.lived != nil:
		w.held, w.told.settled = true, time.Time{}
	}
	c.changed, w.pending = true, true
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
	told := cmp.Or(w.told, w.lived)
	if told == nil || told.fingerprint == w.cleared {
		return // its Envoy finds nothing wrong with it: the cause is at the host
	}
	told.settled = time.Time{}
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
				g.Go(func() error { c.search(ctx, name); return nil })
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
		case w.told == nil || w.held || w.pending || w.ill != "" || w.searching:
		case !c.d.xds.Settled(name):
			w.told.settled = time.Time{}
		case w.told.settled.IsZero():
			w.told.settled = now
		case now.Sub(w.told.settled) >= c.d.livedAfter:
			w.lived, w.told = w.told, nil
			if w.stuck != "" {
				c.d.loop.again() // for the findings
			}
			w.crashed, w.cleared, w.stuck, w.failures, w.heldCrashes = false, "", "", 0, 0
		}
	}
}

// due marks those whose search begins now: one a node, and first who has had the fewest.
func (c *containment) due(now time.Time) (names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	under := 0
	for _, n := range c.nodes {
		if n.under {
			under++
		}
	}
	ill := slices.Collect(maps.Keys(c.wards))
	ill = slices.DeleteFunc(ill, func(name string) bool {
		w := c.wards[name]
		return w.ill == "" || w.searching || now.Before(w.due)
	})
	slices.SortFunc(ill, func(a, b string) int {
		return cmp.Or(-cmp.Compare(c.node(a).rate.TokensAt(now), c.node(b).rate.TokensAt(now)), cmp.Compare(a, b))
	})
	for _, name := range ill {
		if n := c.node(name); under < maxSearches && !n.under && !now.Before(n.due) && n.rate.AllowN(now, 1) {
			c.wards[name].searching, n.under = true, true
			under++
			names = append(names, name)
		}
	}
	return names
}

// node of a proxy. It must be called with mu held.
func (c *containment) node(proxy string) *searchedNode {
	name, _, _ := strings.Cut(proxy, "/")
	n := c.nodes[name]
	if n == nil {
		n = &searchedNode{rate: rate.NewLimiter(searchRate, searchBurst)}
		c.nodes[name] = n
	}
	return n
}

// search for the culprits of one proxy, and close them.
func (c *containment) search(ctx context.Context, proxy string) {
	began := c.d.now()
	defer func() { c.rest(proxy, began) }()
	c.mu.Lock()
	w, p := c.wards[proxy], c.d.loop.published.Load()
	if w == nil || p == nil {
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
	limited, cancel := context.WithTimeoutCause(ctx, maxSearch, errNoVerdict)
	defer cancel()
	out, err := s.run(limited)
	if ctx.Err() != nil {
		return
	}
	c.conclude(ctx, w, s, out, err)
	c.log.Info("search ended", "proxy", proxy, "took", c.d.now().Sub(began).Round(time.Millisecond).String(), "culprits", len(out.culprits), "error", err)
}

// rest ends a search, and makes the node wait after a long one.
func (c *containment) rest(proxy string, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, now := c.node(proxy), c.d.now()
	n.under = false
	if took := now.Sub(began); took > shortSearch {
		n.due = now.Add(restFactor * took)
	}
	if w := c.wards[proxy]; w != nil {
		w.searching = false
	}
	c.poke()
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
		w.stuck, w.ill, w.stuckAt = why+": closing every object does not help, "+s.words, "", s.snap.Config
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
		w.cleared, w.ill, w.held, w.stuck = out.lives, "", false, ""
	}
	if unseen {
		w.ill, w.stuckAt = "", s.snap.Config
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
	c.changed, w.pending = true, true
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
