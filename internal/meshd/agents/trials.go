package agents

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/contain"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/rpc"
)

const (
	trialPatience = 30 * time.Second // for one verdict; the agent's own timeout is shorter
	maxTrialPart  = 1 << 20          // bytes of resources in one message, unless a single one is larger
	maxTrialOne   = 2 << 20          // bytes of one resource; its base64 must fit into the agent's limit on messages
)

var errNoVerdict = errors.New("no verdict came in time")

// trials asks agents whether their Envoys accept some resources, one question at a time per agent.
type trials struct {
	mu   sync.Mutex // guards open and last
	open map[string]*trialStream
	last uint64
}

// trialStream is one agent's stream of trials.
type trialStream struct {
	ask chan question
	cut context.CancelCauseFunc
}

type question struct {
	parts  []*agentapi.Trial
	answer chan<- error // capacity 1
}

func (t *trials) join(node string, cut context.CancelCauseFunc) *trialStream {
	j := &trialStream{ask: make(chan question), cut: cut}
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.open[node]; old != nil {
		old.cut(errTakenOver)
	}
	t.open[node] = j
	return j
}

func (t *trials) leave(node string, j *trialStream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open[node] == j {
		delete(t.open, node)
	}
}

// try asks a proxy's agent. A contain.Refusal is Envoy's answer; any other error means that there is none.
func (t *trials) try(ctx context.Context, proxy string, resources []*envoy.Resource) error {
	node, workload, _ := strings.Cut(proxy, "/")
	t.mu.Lock()
	t.last++
	id, j := t.last, t.open[node]
	t.mu.Unlock()
	if j == nil {
		return fmt.Errorf("try a configuration at %s: its agent is not connected", proxy)
	}
	parts, err := trialParts(id, workload, resources)
	if err != nil {
		return fmt.Errorf("try a configuration at %s: %w", proxy, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, trialPatience, errNoVerdict)
	defer cancel()
	answer := make(chan error, 1)
	select {
	case j.ask <- question{parts, answer}:
	case <-ctx.Done():
		return fmt.Errorf("try a configuration at %s: %w", proxy, context.Cause(ctx))
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("try a configuration at %s: %w", proxy, context.Cause(ctx))
	}
}

// trialParts splits one trial into messages.
func trialParts(id uint64, workload string, resources []*envoy.Resource) ([]*agentapi.Trial, error) {
	part := &agentapi.Trial{ID: id, Workload: workload}
	parts, size, whole := []*agentapi.Trial{part}, 0, 0
	for _, r := range resources {
		whole += len(r.Body)
		if len(r.Body) > maxTrialOne || whole > agentapi.MaxTrial {
			return nil, errors.New("it is too large for a trial")
		}
		if size += len(r.Body); size > maxTrialPart && len(part.Resources) > 0 {
			part.More = true
			part, size = &agentapi.Trial{ID: id, Workload: workload}, len(r.Body)
			parts = append(parts, part)
		}
		part.Resources = append(part.Resources, agentapi.TrialResource{Type: r.Type, Name: r.Name, Body: r.Body})
	}
	return parts, nil
}

// Try serves an agent's stream of trials. It ends when the agent disconnects, reconnects, is revoked, or does not
// answer in time.
func (a *Agents) Try(stream rpc.Stream[agentapi.Trial, agentapi.Verdict]) error {
	ctx, cut := context.WithCancelCause(stream.Context())
	defer cut(nil)
	caller, err := door.Of(ctx)
	if err != nil {
		return err
	}
	if _, err := a.node(ctx, caller); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- a.judge(ctx, caller, cut, stream) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		if cause := context.Cause(ctx); stream.Context().Err() == nil {
			return status.Error(codes.Aborted, cause.Error())
		}
		return nil
	}
}

// trialStream passes questions to an agent and its verdicts back.
func (a *Agents) judge(
	ctx context.Context, caller door.Caller, cut context.CancelCauseFunc,
	stream rpc.Stream[agentapi.Trial, agentapi.Verdict],
) error {
	if _, err := stream.Recv(); err != nil { // the agent is ready
		return nil
	}
	j := a.trials.join(caller.Name, cut)
	defer a.trials.leave(caller.Name, j)
	if _, err := a.node(ctx, caller); err != nil {
		return err // revoked before it could be cut
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case q := <-j.ask:
			late := time.AfterFunc(trialPatience, func() { cut(errNoVerdict) })
			v, err := exchange(stream, q.parts)
			late.Stop()
			if err != nil {
				q.answer <- fmt.Errorf("try a configuration at %s: %w", caller.Name,
					errors.Join(context.Cause(ctx), err))
				return nil
			}
			q.answer <- verdictError(caller.Name, v)
		}
	}
}

func exchange(stream rpc.Stream[agentapi.Trial, agentapi.Verdict], parts []*agentapi.Trial) (*agentapi.Verdict, error) {
	for _, p := range parts {
		if err := stream.Send(p); err != nil {
			return nil, err
		}
	}
	for {
		v, err := stream.Recv()
		if err != nil || v.ID == parts[0].ID {
			return v, err
		}
	}
}

// verdictError converts a verdict to an error. The agent's text is truncated for display.
func verdictError(node string, v *agentapi.Verdict) error {
	switch {
	case v.Failure != "":
		return fmt.Errorf("try a configuration at %s: %s", node, finding.Truncate(v.Failure))
	case v.Refusal != "":
		return contain.Refusal(mainLine(v.Refusal))
	}
	return nil
}

// mainLine returns the line of Envoy's output that states the reason.
func mainLine(words string) string {
	lines := strings.Split(strings.TrimSpace(words[:min(len(words), 8<<10)]), "\n")
	for _, mark := range []string{
		"assert failure: ", "error initializing configuration", "std::terminate called", "panic: ",
	} {
		for _, l := range lines {
			if i := strings.Index(l, mark); i >= 0 {
				return finding.Truncate(l[i:])
			}
		}
	}
	return finding.Truncate(lines[0])
}
