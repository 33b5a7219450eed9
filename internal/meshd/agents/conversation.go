package agents

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/errand"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/rpc"
)

// agent is the session of one agent.
type agent struct {
	name    string
	stream  uint64 // number of the session; the highest wins
	report  agentapi.Report
	next    *agentapi.Instructions // what it should have
	telling *errand.Errand
	cut     context.CancelCauseFunc

	told    *agentapi.Instructions // of the run of telling
	sharing sharing                // owned by the run that applies its reports
}

var errTakenOver = errors.New("another stream of this agent took over")

// Sync receives an agent's reports and sends it instructions. It ends when the agent disconnects, reconnects, or loses
// the validity of its certificate, even if the agent does not read. An agent that is idle costs two goroutines here:
// this one, and one that waits for its next report.
func (a *Agents) Sync(stream rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
	ctx, cut := context.WithCancelCause(stream.Context())
	defer cut(nil)
	caller, err := door.Of(ctx)
	if err != nil {
		return err
	}
	ended := make(chan error, 3)
	ag, err := a.begin(ctx, cut, &caller, stream, ended)
	if err != nil {
		return err
	}
	var listening sync.WaitGroup
	defer func() {
		a.leave(ag)
		// the agent is told why the session ended before an unavailable database answers
		go func() {
			listening.Wait()
			a.unshare(ag)
		}()
	}()
	if err := a.share(ctx, ag); err != nil {
		return err
	}
	listening.Go(func() { a.listen(ctx, &caller, ag, stream.Recv, ended) })
	ag.wake()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	if cause := context.Cause(ctx); errors.Is(cause, errTakenOver) {
		return status.Error(codes.Aborted, cause.Error())
	}
	return nil
}

// begin applies the first report of a conversation.
func (a *Agents) begin(
	ctx context.Context, cut context.CancelCauseFunc, caller *door.Caller,
	stream rpc.Stream[agentapi.Instructions, agentapi.Report], ended chan<- error,
) (*agent, error) {
	n, err := a.node(ctx, *caller)
	if err != nil {
		return nil, err
	}
	number, err := a.State.BeginConversation(ctx, n.Name, n.Generation)
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if err := a.quotas.node(n.Name).reports.Wait(ctx); err != nil {
		return nil, err
	}
	if err := a.take(ctx, *caller, n, number, first); err != nil {
		return nil, err
	}
	ag := &agent{name: n.Name, stream: number, report: *first, cut: cut}
	ag.telling = errand.New(func() error { return a.tell(ag, stream) }, ended)
	if err := a.join(ag); err != nil {
		return nil, err
	}
	a.Log.Info("agent connected", "node", n.Name, "role", n.Role, "workloads", len(first.Workloads))
	return ag, nil
}

// hearAgain is how long a report rests that could not be taken in, or not be shared.
const hearAgain = time.Second

// listen has reports taken in until the stream ends: of those that come faster than they may, the newest two.
func (a *Agents) listen(
	ctx context.Context, caller *door.Caller, ag *agent, recv func() (*agentapi.Report, error), ended chan<- error,
) {
	ctx, cancel := context.WithCancel(ctx)
	h := &hearing{agents: a, caller: caller, agent: ag, newest: make(chan *agentapi.Report, 2)}
	taking := errand.New(func() error { return h.run(ctx) }, ended)
	defer taking.Stop()
	defer cancel()
	taking.Ask() // what the first report left to share
	ration := a.quotas.node(ag.name)
	for ration.reads.Wait(ctx) == nil {
		r, err := recv()
		if err != nil {
			break
		}
		for kept := false; !kept; {
			select {
			case h.newest <- r:
				kept = true
			default:
				select {
				case <-h.newest:
				default:
				}
			}
		}
		taking.Ask()
	}
	ended <- nil // the agent went, or came again
}

// hearing applies an agent's reports.
type hearing struct {
	agents *Agents
	caller *door.Caller
	agent  *agent
	newest chan *agentapi.Report
	next   *agentapi.Report // not applied yet
	away   bool             // the state
}

// run applies the newest report and shares it. A report that cannot be registered because the state is unavailable is
// retried until it can be, or until a newer one arrives. The previous report stays in force meanwhile: if the
// conversation ended, it could not be opened again, and the node would count as silent.
func (h *hearing) run(ctx context.Context) error {
	for h.wait(ctx) {
		if err := h.take(ctx); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for the next thing to do; false means that there is none.
func (h *hearing) wait(ctx context.Context) bool {
	wait, due := h.agent.sharing.due(h.agents.Now())
	var again <-chan time.Time
	switch {
	case h.next != nil:
		again = time.After(hearAgain)
	case due:
		again = time.After(max(wait, hearAgain))
	case len(h.newest) == 0:
		return false
	}
	if h.agents.quotas.node(h.agent.name).reports.Wait(ctx) != nil {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case h.next = <-h.newest:
	case <-again:
	}
	return true
}

func (h *hearing) take(ctx context.Context) error {
	a, ag := h.agents, h.agent
	if h.next == nil {
		return a.share(ctx, ag)
	}
	err := a.hear(ctx, *h.caller, ag, h.next)
	if status.Code(err) == codes.Internal {
		if !h.away {
			a.Log.Warn("what an agent says now cannot be registered, what it said before stays in force",
				"node", ag.name, "error", err, "again", hearAgain)
		}
		h.away = true
		return nil
	}
	if err != nil {
		return err
	}
	h.next, h.away = nil, false
	return a.share(ctx, ag)
}

// hear has a report count, or changes nothing.
func (a *Agents) hear(ctx context.Context, caller door.Caller, ag *agent, r *agentapi.Report) error {
	n, err := a.node(ctx, caller)
	if err != nil {
		return err
	}
	if err := a.take(ctx, caller, n, ag.stream, r); err != nil {
		return err
	}
	a.mu.Lock()
	ag.report = *r
	a.mu.Unlock()
	ag.wake() // tell it what is not accepted
	return nil
}

// refusedOf returns, as text, the parts of a node's report that are not accepted.
func (a *Agents) refusedOf(node string) []string {
	var out []string
	for _, f := range a.Store.Report(node).Refused {
		out = append(out, f.String())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.clashed[node] { // a node is not told who owns a name or address, or it could query all of them
		f.Message = "another workload of the mesh has its name, or an address that it gives; it is not registered"
		f.Remedy = "correct the node's settings; the control plane's findings say which (isthmus status --findings)"
		out = append(out, f.String())
	}
	return out
}

// wake has the agent told what it should have. It never blocks.
func (ag *agent) wake() { ag.telling.Ask() }

// tell sends instructions if they differ from the last.
func (a *Agents) tell(ag *agent, stream rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
	a.mu.Lock()
	next := ag.next
	a.mu.Unlock()
	if next == nil {
		return nil
	}
	full := *next
	full.RevokedAdmins, full.Refused = a.revokedAdmins(), a.refusedOf(ag.name)
	if reflect.DeepEqual(ag.told, &full) {
		return nil
	}
	if err := stream.Send(&full); err != nil {
		return err
	}
	ag.told = &full
	return nil
}

// join makes a stream the agent's only one, unless a newer one is.
func (a *Agents) join(ag *agent) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.known[ag.name]; old != nil {
		if old.stream > ag.stream {
			return status.Error(codes.Aborted, errTakenOver.Error())
		}
		old.cut(errTakenOver)
	}
	a.known[ag.name] = ag
	if a.briefing != nil { // with mu held: what is published later finds the agent in known
		ag.next = a.briefing.of(ag.name)
	}
	return nil
}

func (a *Agents) leave(ag *agent) {
	a.mu.Lock()
	if a.known[ag.name] == ag {
		delete(a.known, ag.name)
	}
	a.mu.Unlock()
}

// Instruct sends each connected agent its instructions from the new mesh.
func (a *Agents) Instruct(mesh *model.Mesh) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.briefing
	now := newBriefing(was, mesh)
	a.briefing = now
	for name, ag := range a.known {
		if ag.next != nil && !now.changed(was, name) {
			continue
		}
		next := now.of(name)
		if reflect.DeepEqual(ag.next, next) {
			continue
		}
		ag.next = next
		ag.wake()
	}
}
