package containment

import (
	"cmp"
	"maps"
	"slices"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/snapshot"
)

// Reason says why an object is closed, as a clause.
const Reason = "the proxy's Envoy cannot run with it"

// contained lists the contained proxies, sorted by name.
func (c *Containment) contained() []snapshot.Contained {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []snapshot.Contained
	for _, proxy := range slices.Sorted(maps.Keys(c.wards)) {
		w := c.wards[proxy]
		if w.stuck == "" && len(w.quarantined) == 0 {
			continue
		}
		one := snapshot.Contained{Proxy: proxy, Stuck: w.stuck, Held: w.held}
		for _, key := range sortedKeys(w.quarantined) {
			one.Quarantined = append(one.Quarantined, snapshot.Quarantined{Key: key, Reason: w.quarantined[key].Reason})
		}
		out = append(out, one)
	}
	return out
}

// publish passes the contained proxies to Config.Contained.
func (c *Containment) publish() {
	c.telling.Lock()
	defer c.telling.Unlock()
	c.Contained(c.contained())
}

// Status describes the containment of one proxy; nil if there is none.
func (c *Containment) Status(proxy string) *adminapi.Containment {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.wards[proxy]
	if w == nil || !w.held && w.failure == "" && !w.searching && w.stuck == "" && len(w.quarantined) == 0 {
		return nil
	}
	out := &adminapi.Containment{
		Held: w.held, Searching: w.searching || w.failure != "", Reason: cmp.Or(w.failure, w.stuck),
		Quarantined: []adminapi.Quarantined{},
	}
	for _, key := range sortedKeys(w.quarantined) {
		q := w.quarantined[key]
		out.Quarantined = append(out.Quarantined,
			adminapi.Quarantined{Object: key.String(), Since: q.Since, Reason: q.Reason})
	}
	return out
}

// Totals counts the objects closed at some proxy, and the proxies by kind of containment.
func (c *Containment) Totals() (objects int, proxies map[string]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	closed, proxies := map[snapshot.Key]bool{}, map[string]int{"held": 0, "searched": 0, "quarantine": 0}
	for _, w := range c.wards {
		for key := range w.quarantined {
			closed[key] = true
		}
		switch {
		case w.held:
			proxies["held"]++
		case w.failure != "" || w.searching:
			proxies["searched"]++
		case len(w.quarantined) > 0:
			proxies["quarantine"]++
		}
	}
	return len(closed), proxies
}
