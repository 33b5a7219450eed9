package agents

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
)

// unshareTime limits the write about the end of a session. What is left expires with the control plane's lease.
const unshareTime = 5 * time.Second

// sharedState lets control planes tell each other what agents report.
type sharedState interface {
	PutAgent(context.Context, state.Agent) error
	EndAgent(ctx context.Context, node string, conversation uint64) error
	Agent(ctx context.Context, node string) (state.Agent, error)
	Agents(context.Context) ([]state.Agent, error)
}

// shared is what control planes tell each other about an agent.
type shared struct {
	Report agentapi.Report `json:"report"`
	Wrong  snapshot.Report `json:"wrong"`
}

// remote is an agent connected to another control plane.
type remote struct {
	shared
	holder string
}

// countersEvery is how often mere counters are shared: they change all the time, and nothing waits for them.
const countersEvery = 10 * time.Second

// sharing is what the other control planes know of an agent.
type sharing struct {
	text    []byte    // what they were told; nil: nothing
	urgent  []byte    // text without the counters
	at      time.Time // when they were told
	pending bool      // some of it has not been shared yet
	failing bool      // sharing fails
}

// due returns how long the rest may wait to be shared, if there is any.
func (s *sharing) due(now time.Time) (wait time.Duration, pending bool) {
	return s.at.Add(countersEvery).Sub(now), s.pending
}

// share tells the other control planes what an agent reported, and that it is connected to this one: immediately,
// except for counters. Once they know the latter, a failure to write does not end the session, since a connected node
// would then count as silent. The report is written when that is possible.
func (a *Agents) share(ctx context.Context, ag *agent) error {
	if a.Holder == "" {
		return nil
	}
	a.mu.Lock()
	said := shared{ag.report, a.Store.Report(ag.name)}
	a.mu.Unlock()
	text, err := json.Marshal(said)
	if err != nil {
		return err
	}
	said.Report = withoutCounters(said.Report)
	urgent, err := json.Marshal(said)
	if err != nil {
		return err
	}
	s := &ag.sharing
	wait, _ := s.due(a.Now())
	if s.pending = !bytes.Equal(text, s.text); !s.pending || bytes.Equal(urgent, s.urgent) && wait > 0 {
		return nil
	}
	err = a.State.PutAgent(ctx, state.Agent{Node: ag.name, Conversation: ag.stream, Holder: a.Holder, Report: text})
	switch {
	case errors.Is(err, state.ErrSuperseded):
		return status.Error(codes.Aborted, errTakenOver.Error())
	case err != nil && s.text == nil:
		return status.Error(codes.Unavailable, err.Error())
	case err != nil:
		if !s.failing {
			a.Log.Warn("other control planes were not told what an agent reports", "node", ag.name, "error", err)
		}
		s.failing = true
		return nil
	}
	*s = sharing{text: text, urgent: urgent, at: a.Now()}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.remote, ag.name) // it has left the other control plane
	return nil
}

// withoutCounters returns a report without what only counts. Findings and checks do not depend on that.
func withoutCounters(r agentapi.Report) agentapi.Report {
	quiet := func(e agentapi.EnvoyState) agentapi.EnvoyState {
		e.Refused, e.RefusedLast = min(e.Refused, 1), time.Time{}
		return e
	}
	r.Peers, r.Envoy = nil, quiet(r.Envoy)
	sidecars := make(map[string]agentapi.EnvoyState, len(r.Sidecars))
	for workload, e := range r.Sidecars {
		sidecars[workload] = quiet(e)
	}
	r.Sidecars = sidecars
	return r
}

// unshare tells the others that the agent has gone, unless it speaks to one of them by now.
func (a *Agents) unshare(ag *agent) {
	if ag.sharing.text == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), unshareTime)
	defer cancel()
	if err := a.State.EndAgent(ctx, ag.name, ag.stream); err != nil {
		a.Log.Warn("other control planes were not told that an agent has disconnected", "node", ag.name, "error", err)
	}
}

// Reload loads what a node's agent reported to another control plane. An agent that is connected to another one has
// left this one.
func (a *Agents) Reload(ctx context.Context, node string) error {
	if a.Holder == "" {
		return nil
	}
	one, err := a.State.Agent(ctx, node)
	if errors.Is(err, state.ErrNotFound) {
		one, err = state.Agent{Node: node, Holder: a.Holder}, nil
	}
	if err != nil {
		return err
	}
	return a.takeIn(one)
}

// ReloadAll does so for all nodes, and for administrators.
func (a *Agents) ReloadAll(ctx context.Context) error {
	all, err := a.State.Agents(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	gone := map[string]bool{}
	for node := range a.remote {
		gone[node] = true
	}
	a.mu.Unlock()
	for _, one := range all {
		delete(gone, one.Node)
		if err := a.takeIn(one); err != nil {
			return err
		}
	}
	for node := range gone {
		if err := a.takeIn(state.Agent{Node: node, Holder: a.Holder}); err != nil {
			return err
		}
	}
	return a.ReloadAdmins(ctx)
}

func (a *Agents) takeIn(one state.Agent) error {
	next := remote{holder: one.Holder}
	if one.Holder != a.Holder {
		if err := json.Unmarshal(one.Report, &next.shared); err != nil {
			return fmt.Errorf("what node %s said to another control plane cannot be read: %w", one.Node, err)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if one.Holder == a.Holder {
		delete(a.remote, one.Node)
		return nil
	}
	a.remote[one.Node] = next
	if ag := a.known[one.Node]; ag != nil && ag.stream < one.Conversation {
		ag.cut(errTakenOver)
	}
	next.Wrong.Node = one.Node
	a.Store.SetReport(next.Wrong)
	return nil
}

// Reports returns the last reports of all agents that are connected to any control plane, by node.
func (a *Agents) Reports() map[string]agentapi.Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]agentapi.Report, len(a.known)+len(a.remote))
	for name, r := range a.remote {
		if a.Lives(r.holder) {
			out[name] = r.Report
		}
	}
	for name, ag := range a.known {
		out[name] = ag.report
	}
	return out
}

// report returns the last report of a node's agent, if it is connected.
func (a *Agents) report(node string) (agentapi.Report, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if ag := a.known[node]; ag != nil {
		return ag.report, true
	}
	r, known := a.remote[node]
	return r.Report, known && a.Lives(r.holder)
}

// connected returns the nodes and gateways whose agents are connected to any control plane.
func (a *Agents) connected() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]bool, len(a.known)+len(a.remote))
	for name, r := range a.remote {
		if a.Lives(r.holder) {
			out[name] = true
		}
	}
	for name := range a.known {
		out[name] = true
	}
	return out
}
