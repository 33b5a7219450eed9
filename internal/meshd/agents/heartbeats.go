package agents

import (
	"context"
	"time"

	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/snapshot"
)

// A node whose agent is not connected is silent: its host may be gone. Agents' connections are watched by the kernel,
// which ends those of a host that has not answered for three seconds. What a silent node serves is out of use while
// there is something else; but an agent may be away and its Envoy well, and it may be the control plane that is cut
// off. So the last endpoint of a service is never taken away (compile), and nodes are out of use only while most others
// can be heard.
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
func (a *Agents) watchHeartbeats(ctx context.Context) error {
	h := &heartbeats{started: a.Now()}
	retry.Every(ctx, heartbeatEvery, func(context.Context) {
		a.Store.SetSilentNodes(h.look(a.Store.Nodes(), a.connected(), a.Now()))
	})
	return nil
}
