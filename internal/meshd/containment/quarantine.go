package containment

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// Reason is why an object is closed, as a clause.
const Reason = "the proxy's Envoy cannot live with it"

// Findings of containment: objects that are closed somewhere, and proxies for which no object can be named.
func (c *Containment) Findings(cfg *snapshot.Config) []finding.Finding {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := map[snapshot.Key][]state.Quarantine{}
	var out []finding.Finding
	for name, w := range c.wards {
		for key, q := range w.quarantined {
			at[key] = append(at[key], q)
		}
		if w.stuck != "" {
			out = append(out, stuck(name, w))
		}
	}
	for key, qs := range at {
		slices.SortFunc(qs, func(a, b state.Quarantine) int { return cmp.Compare(a.Proxy, b.Proxy) })
		o := cfg.Origin(key)
		out = append(out, finding.Finding{
			Code: "ISM0230", Severity: finding.Error, Object: key.String(), File: o.File, Line: o.Line,
			Message: fmt.Sprintf("quarantined at %s, whose Envoy cannot live with it: what it "+
				"selects is closed there. %s", proxiesOf(qs), qs[0].Reason),
			Remedy: "change the object, or remove it: it is tried again when it says something else",
		})
	}
	return out
}

func stuck(proxy string, w *ward) finding.Finding {
	f := finding.Finding{
		Code: "ISM0231", Severity: finding.Error, Object: "proxy " + proxy,
		Message: "no object can be named that its Envoy cannot live with. " + w.stuck,
		Remedy:  "look at Envoy's log on that host (envoy.log in the agent's runDir), and undo what was changed last",
	}
	if w.held {
		f.Message = "it lives on an earlier configuration, and changes since are not in force there: " + f.Message
	}
	return f
}

// proxiesOf names the first few.
func proxiesOf(qs []state.Quarantine) string {
	var names []string
	for _, q := range qs[:min(len(qs), 3)] {
		names = append(names, q.Proxy)
	}
	text := strings.Join(names, ", ")
	if more := len(qs) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// Status of one proxy; nil when it is told what everybody is.
func (c *Containment) Status(proxy string) *adminapi.Containment {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.wards[proxy]
	if w == nil || !w.held && w.ill == "" && !w.searching && w.stuck == "" && len(w.quarantined) == 0 {
		return nil
	}
	out := &adminapi.Containment{
		Held: w.held, Searching: w.searching || w.ill != "", Reason: cmp.Or(w.ill, w.stuck),
		Quarantined: []adminapi.Quarantined{},
	}
	for _, key := range sortedKeys(w.quarantined) {
		q := w.quarantined[key]
		out.Quarantined = append(out.Quarantined,
			adminapi.Quarantined{Object: key.String(), Since: q.Since, Reason: q.Reason})
	}
	return out
}

// Totals are the objects closed somewhere, and the proxies by how they are contained.
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
		case w.ill != "" || w.searching:
			proxies["searched"]++
		case len(w.quarantined) > 0:
			proxies["quarantine"]++
		}
	}
	return len(closed), proxies
}
