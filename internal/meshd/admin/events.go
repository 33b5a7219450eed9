package admin

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/state"
)

// Events returns events and refusals.
func (a *Admin) Events(ctx context.Context, r *adminapi.EventsRequest) (*adminapi.EventsResponse, error) {
	flushed := a.Refusals.Flush(ctx) // refusals that cannot be written can still be read
	if flushed != nil {
		a.Log.Error("refusals not recorded yet", "error", flushed)
	}
	all, err := a.State.Events(ctx, state.EventFilter{Since: r.Since, Actor: r.Actor, Action: r.Action, Limit: r.Limit})
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	resp := &adminapi.EventsResponse{Events: []adminapi.Event{}}
	for _, e := range all {
		resp.Events = append(resp.Events, adminapi.Event{
			Seq: e.Seq, Time: e.Time, Actor: e.Actor, From: e.From, Action: e.Action, Object: e.Object,
			Outcome: e.Outcome, Detail: e.Detail,
			First: e.First, Count: e.Count,
		})
	}
	return resp, nil
}
