package containment

import (
	"cmp"
	"time"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

const (
	// maxHeldCrashes is how often a proxy may crash on what it had lived with before that is believed to be fatal, too.
	// One or two may still be of the configuration before.
	maxHeldCrashes = 3
	// crashPeriod is within which a second crash on what a proxy lives with counts.
	crashPeriod = time.Minute
)

// ward is one proxy: what it lives with, what it was told since, and what is done about it when it falls ill.
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

// Reported takes in how a node's Envoys are, and how often each has crashed since the last report.
func (c *Containment) Reported(node string, r *agentapi.Report) {
	now := map[string]int{node: r.Envoy.Crashes}
	how := map[string]string{node: r.Envoy.LastCrash}
	if len(r.Sidecars) > 0 {
		clear(now)
	}
	for workload, s := range r.Sidecars {
		now[node+"/"+workload], how[node+"/"+workload] = s.Crashes, s.LastCrash
	}
	if c.crashed(node, now, how) {
		c.tell()
	}
}

// crashed takes in how often each Envoy of a node has, and says whether one has again.
func (c *Containment) crashed(node string, now map[string]int, how map[string]string) (again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.crashes[node]
	c.crashes[node] = now
	for proxy, n := range now {
		was, known := before[proxy]
		if w := c.wards[proxy]; w != nil && known && n > was {
			again = true
			c.crash(w, "Envoy ended: "+how[proxy])
		}
	}
	return again
}

// crash must be called with mu held.
func (c *Containment) crash(w *ward, how string) {
	switch {
	case w.held:
		if w.heldCrashes++; w.heldCrashes < maxHeldCrashes {
			return
		}
		w.lived, w.held, w.heldCrashes = nil, false, 0
	case w.told == nil && w.lived == nil:
		return // it was told nothing
	case w.told == nil: // of what it had lived with: something else may have been the cause
		now := c.Now()
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
	c.again()
}

// Refused takes in that a proxy refuses something: Envoy keeps the resource as it was before, and takes the others.
func (c *Containment) Refused(proxy, reason string) {
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
	w.fallIll("Envoy refuses "+finding.Truncate(reason), false)
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

// promote notes who lives with what it was told.
func (c *Containment) promote(now time.Time) {
	if c.promoted(now) {
		c.tell()
	}
}

// promoted says whether one lives that was stuck.
func (c *Containment) promoted(now time.Time) (freed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, w := range c.wards {
		switch {
		case w.told == nil || w.held || w.pending || w.ill != "" || w.searching:
		case !c.Settled(name):
			w.told.settled = time.Time{}
		case w.told.settled.IsZero():
			w.told.settled = now
		case now.Sub(w.told.settled) >= c.LivedAfter:
			w.lived, w.told = w.told, nil
			freed = freed || w.stuck != ""
			w.crashed, w.cleared, w.stuck, w.failures, w.heldCrashes = false, "", "", 0, 0
		}
	}
	return freed
}
