package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/node/envoyproc"
	"isthmus.dev/isthmus/internal/retry"
	"isthmus.dev/isthmus/internal/rpc"
)

// answerTrials answers the control plane's questions whether an Envoy accepts a configuration, one trial at a time.
func (a *Agent) answerTrials(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-a.control.Joined():
	}
	wait := retry.Backoff{Min: 200 * time.Millisecond, Max: 2 * time.Second}
	for {
		err := a.tryFor(ctx, wait.Reset)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// runStream logs that the control plane is away
		a.log.Debug("stream of trials ended", "error", err)
		if err := retry.Sleep(ctx, wait.Next()); err != nil {
			return err
		}
	}
}

func (a *Agent) tryFor(ctx context.Context, answered func()) error {
	stream, err := a.control.Trials(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(&agentapi.Verdict{}); err != nil {
		return err
	}
	for {
		t, err := readTrial(stream)
		if err != nil {
			return err
		}
		answered()
		if err := stream.Send(a.runTrial(ctx, t)); err != nil {
			return err
		}
	}
}

// readTrial joins the messages of one trial.
func readTrial(stream rpc.Stream[agentapi.Verdict, agentapi.Trial]) (*agentapi.Trial, error) {
	var whole *agentapi.Trial
	size := 0
	for {
		part, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		for _, r := range part.Resources {
			size += len(r.Body)
		}
		switch {
		case size > agentapi.MaxTrial:
			return nil, fmt.Errorf("a trial of more than %d bytes", agentapi.MaxTrial)
		case whole == nil || whole.ID != part.ID:
			whole = part
		default:
			whole.Resources = append(whole.Resources, part.Resources...)
		}
		if !part.More {
			return whole, nil
		}
	}
}

func (a *Agent) runTrial(ctx context.Context, t *agentapi.Trial) *agentapi.Verdict {
	v := &agentapi.Verdict{ID: t.ID}
	for _, p := range a.proxies {
		if p.workload != t.Workload {
			continue
		}
		var refusal envoyproc.Refusal
		switch err := p.envoy.Try(ctx, resourcesOf(t)); {
		case errors.As(err, &refusal):
			v.Refusal = refusal.Error()
		case err != nil:
			v.Failure = err.Error()
		}
		return v
	}
	v.Failure = "there is no such Envoy here"
	return v
}

func resourcesOf(t *agentapi.Trial) []*envoy.Resource {
	out := make([]*envoy.Resource, len(t.Resources))
	for i, r := range t.Resources {
		out[i] = &envoy.Resource{Type: r.Type, Name: r.Name, Body: r.Body}
	}
	return out
}
