package containment

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

const (
	// checkEvery is how often proxies are checked, besides each time that one fails.
	checkEvery = 500 * time.Millisecond
	// maxSearches limits the concurrent searches, one per node.
	maxSearches = 4
	// searchRate limits the searches for one node, after a burst.
	searchRate  = rate.Limit(1.0 / 10)
	searchBurst = 20
	// maxSearch limits one search. After one longer than shortSearch, its node waits restFactor times as long.
	maxSearch   = time.Minute
	shortSearch = 2 * time.Second
	restFactor  = 4
	// maxFailures is how often a search may fail before everything that has changed is closed. retrySearch is the pause
	// in between.
	maxFailures = 3
	retrySearch = 3 * time.Second
)

var errTooLong = errors.New("no verdict came in time")

// searchedNode is the search budget of one node. A node that reports false failures costs little more than itself.
type searchedNode struct {
	under bool // a search is running
	rate  *rate.Limiter
	due   time.Time
}

// Run checks which proxies are stable, and searches the culprits of those that have failed.
func (c *Containment) Run(ctx context.Context) error {
	forever := context.WithoutCancel(ctx)
	defer c.write(forever)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-c.kept:
			}
			c.write(forever)
		}
	})
	g.Go(func() error {
		tick := time.NewTicker(checkEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			case <-c.wake:
			}
			c.promote(c.Now())
			for _, name := range c.due(c.Now()) {
				g.Go(func() error { c.search(ctx, name); return nil })
			}
		}
	})
	return g.Wait()
}

// poke signals that a search may be due. It never blocks.
func (c *Containment) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// due returns the proxies whose search begins now: one per node, starting with nodes that had the fewest.
func (c *Containment) due(now time.Time) (names []string) {
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
		return w.failure == "" || w.searching || now.Before(w.due)
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

// node returns a proxy's node. It must be called with mu held.
func (c *Containment) node(proxy string) *searchedNode {
	name := model.NodeOfProxy(proxy)
	n := c.nodes[name]
	if n == nil {
		n = &searchedNode{rate: rate.NewLimiter(searchRate, searchBurst)}
		c.nodes[name] = n
	}
	return n
}

// search finds the culprits for one proxy and closes them.
func (c *Containment) search(ctx context.Context, proxy string) {
	began := c.Now()
	defer func() { c.rest(proxy, began) }()
	c.mu.Lock()
	w := c.wards[proxy]
	if w == nil || c.published == nil {
		c.mu.Unlock()
		return
	}
	s := &search{
		proxy: proxy, snap: c.published.Snapshot, compiled: c.published, build: c.Build, try: c.Try,
		suspects: c.quarantinedElsewhere(proxy), closed: sortedKeys(w.quarantined),
	}
	if w.lastGood != nil {
		s.lastGood = w.lastGood.config
	}
	why := w.failure
	c.mu.Unlock()
	c.Log.Warn("proxy is contained, looking for the cause", "proxy", proxy, "reason", why)
	limited, cancel := context.WithTimeoutCause(ctx, maxSearch, errTooLong)
	defer cancel()
	out, err := s.run(limited)
	if ctx.Err() != nil {
		return
	}
	c.conclude(w, s, out, err)
	c.Log.Info("search ended", "proxy", proxy, "took", c.Now().Sub(began).Round(time.Millisecond).String(),
		"culprits", len(out.culprits), "error", err)
}

// rest ends a search, and makes the node wait after a long one.
func (c *Containment) rest(proxy string, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, now := c.node(proxy), c.Now()
	n.under = false
	if took := now.Sub(began); took > shortSearch {
		n.due = now.Add(restFactor * took)
	}
	if w := c.wards[proxy]; w != nil {
		w.searching = false
	}
	c.poke()
}

// quarantinedElsewhere matches the objects that other proxies rejected. It must be called with mu held.
func (c *Containment) quarantinedElsewhere(proxy string) func(*snapshot.Object) bool {
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
	return func(o *snapshot.Object) bool { return keys[o.Key] && known[content{o.Key, o.Hash.String()}] }
}

// conclude acts on the outcome of a search.
func (c *Containment) conclude(w *proxyState, s *search, out outcome, err error) {
	now := c.Now()
	changes := s.candidates(contain.Changed(s.lastGood, s.snap.Config))
	c.mu.Lock()
	why, unseen := w.failure, false
	w.searching = false
	switch {
	case errors.Is(err, contain.ErrNoCulprit):
		w.stuck, w.failure, w.stuckAt = why+": closing every object does not help, "+s.envoyMessage, "", s.snap.Config
	case err != nil:
		if w.failures++; w.failures < maxFailures {
			w.due = now.Add(retrySearch)
			c.mu.Unlock()
			return
		}
		unseen = true
		w.stuck = why + ": " + err.Error()
	case out.acceptedAs != "" && out.acceptedAs == w.cleared && w.crashed: // for the second time
		unseen = true
		w.stuck = why + ", though it finds nothing wrong with its configuration"
	case out.acceptedAs != "":
		w.cleared, w.failure, w.held, w.stuck = out.acceptedAs, "", false, ""
	}
	if unseen {
		w.failure, w.stuckAt = "", s.snap.Config
		if s.lastGood != nil && len(changes) > 0 { // one of these must be the cause
			out = outcome{culprits: changes, envoyMessage: w.stuck, cutShort: true}
			w.stuck = ""
		}
	}
	if len(out.culprits) > 0 {
		w.failure, w.stuck, w.held = "", "", false
	}
	var add []state.Quarantine
	for _, o := range out.culprits {
		q := state.Quarantine{
			Proxy: s.proxy, Object: o.Key, Content: o.Hash.String(), Reason: reasonFor(why, out),
			Since: now,
		}
		w.quarantined[o.Key] = q
		add = append(add, q)
	}
	if w.failure == "" {
		w.failures, w.heldCrashes, w.crashed = 0, 0, w.crashed && w.cleared != ""
	}
	if w.nextFailure != "" {
		w.failure, w.nextFailure = w.nextFailure, ""
	}
	c.changed, w.pending = true, true
	c.mu.Unlock()
	c.keep(add, nil)
	c.publish()
	c.again()
}

func reasonFor(why string, out outcome) string {
	reason := why
	if out.envoyMessage != "" {
		reason += " (" + out.envoyMessage + ")"
	}
	if out.cutShort {
		reason += "; it is one of several that may be the cause"
	}
	return reason
}
