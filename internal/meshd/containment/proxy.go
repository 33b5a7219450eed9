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
	// maxHeldCrashes is how often a proxy may crash on its last good configuration before that counts as fatal, too.
	// One or two crashes may still be due to the previous configuration.
	maxHeldCrashes = 3
	// crashPeriod is the time within which a second crash on a good configuration counts.
	crashPeriod = time.Minute
)

// proxyState is the state of one proxy: its last good configuration, what it was sent since, and what is done about a
// failure.
type proxyState struct {
	lastGood *sentConfig // the last good configuration; nil if unknown
	onTrial  *sentConfig // what it was sent after that; nil if it still has that

	quarantined map[snapshot.Key]state.Quarantine

	failure     string // why a search is due, in the proxy's words; empty if it is well
	crashed     bool   // it crashed, rather than rejecting something
	held        bool   // it stays on its last good configuration
	heldCrashes int
	goodCrash   time.Time // its last crash on a good configuration
	searching   bool
	nextFailure string           // a failure during a search
	cleared     string           // fingerprint of a configuration that its Envoy accepted in a trial
	stuck       string           // why no culprit can be named
	stuckAt     *snapshot.Config // with this configuration
	pending     bool             // its new plan is not published yet
	failures    int
	due         time.Time
}

// sentConfig is a configuration that was sent to one proxy.
type sentConfig struct {
	config      *snapshot.Config
	closed      []snapshot.Key // objects closed in it
	fingerprint string         // of the resources
	settled     time.Time      // when all of them had been acknowledged
}

// Reported processes the state of a node's Envoys: failures, and new crashes.
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
		c.publish()
	}
}

// crashed records the crash counts of a node's Envoys, and reports whether one has crashed again.
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
func (c *Containment) crash(w *proxyState, how string) {
	switch {
	case w.held:
		if w.heldCrashes++; w.heldCrashes < maxHeldCrashes {
			return
		}
		w.lastGood, w.held, w.heldCrashes = nil, false, 0
	case w.onTrial == nil && w.lastGood == nil:
		return // it was sent nothing
	case w.onTrial == nil: // on its last good configuration: something else may be the cause
		now := c.Now()
		before := w.goodCrash
		if w.goodCrash = now; now.Sub(before) > crashPeriod {
			return
		}
		w.lastGood = nil
	case w.lastGood != nil:
		w.held, w.onTrial.settled = true, time.Time{}
	}
	c.changed, w.pending = true, true
	w.fail(how, true)
	c.poke()
	c.again()
}

// Refused records that a proxy rejected something. Envoy keeps the previous version of that resource and accepts the
// others.
func (c *Containment) Refused(proxy, reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.wards[proxy]
	if w == nil || w.held {
		return
	}
	told := cmp.Or(w.onTrial, w.lastGood)
	if told == nil || told.fingerprint == w.cleared {
		return // its Envoy accepts it in a trial: the cause is on the host
	}
	told.settled = time.Time{}
	w.fail("Envoy refuses "+finding.Truncate(reason), false)
	c.poke()
}

func (w *proxyState) fail(why string, crashed bool) {
	w.crashed = w.crashed || crashed
	if w.searching {
		w.nextFailure = why
	} else if w.failure == "" {
		w.failure = why
	}
}

// promote records which proxies are stable on what they were sent.
func (c *Containment) promote(now time.Time) {
	if c.promoted(now) {
		c.publish()
	}
}

// promoted reports whether a stuck proxy has become stable.
func (c *Containment) promoted(now time.Time) (freed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, w := range c.wards {
		switch {
		case w.onTrial == nil || w.held || w.pending || w.failure != "" || w.searching:
		case !c.Settled(name):
			w.onTrial.settled = time.Time{}
		case w.onTrial.settled.IsZero():
			w.onTrial.settled = now
		case now.Sub(w.onTrial.settled) >= c.StableAfter:
			w.lastGood, w.onTrial = w.onTrial, nil
			freed = freed || w.stuck != ""
			w.crashed, w.cleared, w.stuck, w.failures, w.heldCrashes = false, "", "", 0, 0
		}
	}
	return freed
}
