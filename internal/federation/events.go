package federation

import (
	"context"
	"net"
	"net/netip"

	"isthmus.dev/isthmus/internal/state"
)

// controlPlane is the actor of what this process does by itself.
const controlPlane = "control plane"

// record writes down what did not come by an administrator's command. That must not fail what it tells of.
func (s *Service) record(ctx context.Context, e state.Event) {
	if err := s.Store.Record(context.WithoutCancel(ctx), e); err != nil {
		s.Log.Error("event not recorded",
			"action", e.Action, "object", e.Object, "outcome", e.Outcome, "error", err)
	}
}

// recordStranger writes down and logs that somebody was refused of whom nothing is known, as far as that costs little.
func (s *Service) recordStranger(ctx context.Context, e state.Event) {
	if !s.limits.allow("stranger: " + e.Action) {
		return
	}
	e.Actor, e.Outcome = state.Stranger, state.Refused
	s.Log.Warn("refused", "action", e.Action, "from", e.From, "object", e.Object, "reason", e.Detail)
	s.record(ctx, e)
}

// address is where a request comes from.
func address(remote string) netip.Addr {
	from, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap()
}

// host of an address: refusals are counted together that differ in the port alone.
func host(address string) string {
	if h, _, err := net.SplitHostPort(address); err == nil {
		return h
	}
	return address
}

func actorOf(peer string) string { return "peer " + peer }
