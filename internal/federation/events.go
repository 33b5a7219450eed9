package federation

import (
	"context"
	"net"
	"net/netip"

	"isthmus.dev/isthmus/internal/state"
)

// controlPlane is the actor of actions that this process takes on its own.
const controlPlane = "control plane"

// record records an event that was not caused by a command. A failure to record does not undo the event.
func (s *Service) record(ctx context.Context, e state.Event) {
	if err := s.Store.Record(context.WithoutCancel(ctx), e); err != nil {
		s.Log.Error("event not recorded",
			"action", e.Action, "object", e.Object, "outcome", e.Outcome, "error", err)
	}
}

// recordStranger records and logs the refusal of an unknown caller, rate-limited.
func (s *Service) recordStranger(ctx context.Context, e state.Event) {
	if !s.limits.allow("stranger: " + e.Action) {
		return
	}
	e.Actor, e.Outcome = state.Stranger, state.Refused
	s.Log.Warn("refused", "action", e.Action, "from", e.From, "object", e.Object, "reason", e.Detail)
	s.record(ctx, e)
}

// address returns the IP address of a request's sender.
func address(remote string) netip.Addr {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap()
}

// host strips the port, so that refusals that differ only in the port count as one.
func host(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		return h
	}
	return address
}

func actorOf(peer string) string { return "peer " + peer }
