package agents

import (
	"context"
	"time"

	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/snapshot"
)

// A node whose agent is not connected is silent: its host may be down. The kernel closes agents' connections if a host
// has not answered for three seconds. Endpoints on a silent node are not used while there are others. But an agent may
// be down while its Envoy works, or the control plane may be the one that is cut off. So the last endpoint of a service
// is never removed (compile), and silent nodes are avoided only while most nodes are connected.
const (
	heartbeatEvery = 250 * time.Millisecond
	// silentFor is how long an agent may be disconnected, to restart for example.
	silentFor = time.Second
	// startupGrace is how long nodes may take to connect to a control plane that has just started.
	startupGrace = 30 * time.Second
	// settling is how long nodes have to reconnect after most of them were silent at once.
	settling = 10 * time.Second
)

// heartbeats tracks which nodes are silent.
type heartbeats struct {
	nodes      map[string]heartbeat
	started    time.Time
	mostSilent time.Time // when most nodes in use were last silent
}

// heartbeat is the state of one node.
type heartbeat struct {
	heard bool      // ever connected to this control plane
	since time.Time // silent since; zero: connected
	out   bool      // its endpoints are avoided
}

// look updates the state from the connected nodes, and returns the nodes to avoid, by name.
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
		h.mostSilent = now
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
	return (b.heard || now.Sub(h.started) >= startupGrace) &&
		(h.mostSilent.IsZero() || now.Sub(h.mostSilent) >= settling)
}

// watchHeartbeats keeps the store informed of silent nodes until ctx is done.
func (a *Agents) watchHeartbeats(ctx context.Context) error {
	h := &heartbeats{started: a.Now()}
	retry.Every(ctx, heartbeatEvery, func(context.Context) {
		a.Store.SetSilentNodes(h.look(a.Store.Nodes(), a.connected(), a.Now()))
	})
	return nil
}
