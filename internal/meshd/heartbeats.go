package meshd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
)

// A node whose agent is not connected is silent: its host may be gone. Agents' connections are watched by the kernel, which
// ends those of a host that has not answered for three seconds. What a silent node serves is out of use while there is something
// else; but an agent may be away and its Envoy well, and it may be the control plane that is cut off. So the last endpoint of a
// service is never taken away (compile), and nodes are out of use only while most others can be heard.
const (
	heartbeatEvery = 250 * time.Millisecond
	// silentFor is how long an agent may be away, to be started again for example.
	silentFor = time.Second
	// firstWord is how long a node may take to connect to a control plane that has just started.
	firstWord = 30 * time.Second
	// settling is how long nodes have to come back after most of them were silent at once.
	settling = 10 * time.Second
)

// heartbeats knows which nodes are silent.
type heartbeats struct {
	nodes   map[string]heartbeat
	started time.Time
	crowd   time.Time // when most nodes that are in use were last silent
}

// heartbeat is what is known of one node.
type heartbeat struct {
	heard bool      // ever, by this control plane
	since time.Time // silent since; zero: it is connected
	out   bool      // of use
}

// look takes in who is connected now, and says who is out of use, by name.
func (h *heartbeats) look(registered []string, connected map[string]bool, now time.Time) []snapshot.SilentNode {
	next := make(map[string]heartbeat, len(registered))
	here, missed := 0, 0
	for _, name := range registered {
		b := h.nodes[name]
		switch {
		case connected[name]:
			b = heartbeat{heard: true}
			here++
		case b.since.IsZero():
			b.since = now
		}
		if !b.since.IsZero() && !b.out {
			missed++
		}
		next[name] = b
	}
	h.nodes = next
	if missed > here {
		h.crowd = now
	}
	var out []snapshot.SilentNode
	for _, name := range registered {
		b := next[name]
		b.out = b.out || h.isGone(b, now)
		next[name] = b
		if b.out {
			out = append(out, snapshot.SilentNode{Name: name, Since: b.since})
		}
	}
	return out
}

func (h *heartbeats) isGone(b heartbeat, now time.Time) bool {
	if b.since.IsZero() || now.Sub(b.since) < silentFor {
		return false
	}
	return (b.heard || now.Sub(h.started) >= firstWord) && (h.crowd.IsZero() || now.Sub(h.crowd) >= settling)
}

// watchHeartbeats has the store know who is silent, until ctx ends.
func (d *Daemon) watchHeartbeats(ctx context.Context) error {
	h := &heartbeats{started: d.now()}
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d.store.SetSilentNodes(h.look(d.store.Nodes(), d.agents.connected(), d.now()))
	}
}

// connected are the nodes and gateways whose agents are.
func (a *agents) connected() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]bool, len(a.known))
	for name := range a.known {
		out[name] = true
	}
	return out
}

// endpointFindings say which nodes are silent, and which services nobody can be led to.
func endpointFindings(snap *snapshot.Snapshot, mesh *model.Mesh) []finding.Finding {
	var out []finding.Finding
	for _, n := range snap.SilentNodes {
		var on []string
		if p := mesh.Proxies[n.Name]; p != nil {
			for _, w := range slices.Concat(p.Workloads, p.Sidecars) {
				on = append(on, w.ID.String())
			}
		}
		if len(on) == 0 {
			continue
		}
		out = append(out, finding.Finding{
			Code: "ISM0300", Severity: finding.Warning, Object: "node " + n.Name,
			Message: fmt.Sprintf("silent since %s: what it serves (%s) is out of use wherever another endpoint is ready",
				n.Since.UTC().Format(time.RFC3339), firstFew(on)),
			Remedy: "see whether its host and agent run and reach the control plane; if it is gone for good, isthmus node revoke " + n.Name,
		})
	}
	for _, svc := range mesh.Services {
		for _, p := range svc.Ports {
			eps := mesh.Endpoints[model.EndpointSet{Host: svc.Host, Port: p.Number}]
			if len(eps) == 0 || slices.ContainsFunc(eps, func(e model.Endpoint) bool { return e.Healthy }) {
				continue
			}
			var by []string
			for _, e := range eps {
				if e.By != (model.WorkloadID{}) {
					by = append(by, e.By.String())
				}
			}
			out = append(out, finding.Finding{
				Code: "ISM0301", Severity: finding.Warning, Object: "Service " + svc.ID.Namespace + "/" + svc.ID.Name,
				Message: fmt.Sprintf("none of its %d endpoints at port %d is ready (%s), so every call fails", len(eps), p.Number, firstFew(by)),
				Remedy:  "see why their programs fail their readiness probes: isthmus endpoints shows them",
			})
		}
	}
	finding.Sort(out)
	return out
}

// firstFew are names for a sentence.
func firstFew(names []string) string {
	const few = 5
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}
