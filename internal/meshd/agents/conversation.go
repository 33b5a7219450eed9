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
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/state"
)

// agent is the session of one agent.
type agent struct {
	name    string
	stream  uint64 // its number: the newest stays
	report  agentapi.Report
	awake   chan struct{}
	next    *agentapi.Instructions // what it should have
	cut     context.CancelCauseFunc
	sharing sharing // of the goroutine that listens
}

var errTakenOver = errors.New("another stream of this agent took over")

// Sync receives an agent's reports and sends it instructions. It ends when the agent disconnects, reconnects, or loses
// the validity of its certificate, even if the agent does not read.
func (a *Agents) Sync(stream rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
	ctx, cut := context.WithCancelCause(stream.Context())
	defer cut(nil)
	caller, err := door.Of(ctx)
	if err != nil {
		return err
	}
	n, err := a.node(ctx, caller)
	if err != nil {
		return err
	}
	number, err := a.State.BeginConversation(ctx, n.Name, n.Generation)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if a.quotas.node(n.Name).reports.Wait(ctx) != nil {
		return nil
	}
	if err := a.take(ctx, caller, n, number, first); err != nil {
		return err
	}
	ag, err := a.join(n, number, *first, cut)
	if err != nil {
		return err
	}
	var listening sync.WaitGroup
	defer func() {
		a.leave(ag)
		// the agent is told why the conversation ended before a database answers that is away
		go func() {
			listening.Wait()
			a.unshare(ag)
		}()
	}()
	if err := a.share(ctx, ag); err != nil {
		return err
	}
	a.Log.Info("agent connected", "node", n.Name, "role", n.Role, "workloads", len(first.Workloads))
	ended := make(chan error, 2)
	listening.Go(func() { ended <- a.listen(ctx, caller, ag, stream.Recv) })
	go func() { ended <- a.tell(ctx, ag, stream) }()
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

// hearAgain is how long a report rests that could not be taken in, or not be shared.
const hearAgain = time.Second

// listen takes in reports until the stream ends: of those that come faster than they may, the newest. One that cannot
// be registered because the state is away is tried again until it can be, or until a newer one comes. What the agent
// said before stays in force meanwhile: a conversation that ended could not begin anew, and its node would be taken for
// silent.
func (a *Agents) listen(
	ctx context.Context, caller door.Caller, ag *agent, recv func() (*agentapi.Report, error),
) error {
	ration := a.quotas.node(ag.name)
	newest := make(chan *agentapi.Report, 1)
	go func() {
		defer close(newest)
		for ration.reads.Wait(ctx) == nil {
			r, err := recv()
			if err != nil {
				return
			}
			select {
			case <-newest:
			default:
			}
			newest <- r
		}
	}()
	var next *agentapi.Report // not taken in yet
	away := false             // the state
	for {
		if ration.reports.Wait(ctx) != nil {
			return nil
		}
		var again <-chan time.Time
		if wait, due := ag.sharing.due(a.Now()); next != nil {
			again = time.After(hearAgain)
		} else if due {
			again = time.After(max(wait, hearAgain))
		}
		select {
		case r, more := <-newest:
			if !more || ctx.Err() != nil {
				return nil // the agent went, or came again
			}
			next = r
		case <-again:
		}
		if next != nil {
			err := a.hear(ctx, caller, ag, *next)
			if status.Code(err) == codes.Internal {
				if !away {
					a.Log.Warn("what an agent says now cannot be registered, what it said before stays in force",
						"node", ag.name, "error", err, "again", hearAgain)
				}
				away = true
				continue
			}
			if err != nil {
				return err
			}
			next, away = nil, false
		}
		if err := a.share(ctx, ag); err != nil {
			return err
		}
	}
}

// hear has a report count, or changes nothing.
func (a *Agents) hear(ctx context.Context, caller door.Caller, ag *agent, r agentapi.Report) error {
	n, err := a.node(ctx, caller)
	if err != nil {
		return err
	}
	if err := a.take(ctx, caller, n, ag.stream, &r); err != nil {
		return err
	}
	a.mu.Lock()
	ag.report = r
	a.mu.Unlock()
	ag.wake() // what of the report does not stand
	return nil
}

// refusedOf is what of a node's report does not stand, as text.
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

// wake makes the agent's current instructions be sent. It never blocks.
func (ag *agent) wake() {
	select {
	case ag.awake <- struct{}{}:
	default:
	}
}

// tell sends instructions whenever they have changed.
func (a *Agents) tell(ctx context.Context, ag *agent, stream rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
	var last *agentapi.Instructions
	for {
		a.mu.Lock()
		next := ag.next
		a.mu.Unlock()
		if next != nil {
			full := *next
			full.RevokedAdmins, full.Refused = a.revokedAdmins(), a.refusedOf(ag.name)
			next = &full
		}
		if next != nil && !reflect.DeepEqual(last, next) {
			if err := stream.Send(next); err != nil {
				return err
			}
			last = next
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ag.awake:
		}
	}
}

// join makes a stream the agent's only one, unless a newer one exists.
func (a *Agents) join(n state.Node, stream uint64, r agentapi.Report, cut context.CancelCauseFunc) (*agent, error) {
	ag := &agent{name: n.Name, stream: stream, report: r, awake: make(chan struct{}, 1), cut: cut}
	a.mu.Lock()
	defer a.mu.Unlock()
	if old := a.known[n.Name]; old != nil {
		if old.stream > stream {
			return nil, status.Error(codes.Aborted, errTakenOver.Error())
		}
		old.cut(errTakenOver)
	}
	a.known[n.Name] = ag
	if a.briefing != nil { // with mu held: later publications find the agent in known
		ag.next = a.briefing.of(n.Name)
	}
	return ag, nil
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
