package meshd

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/store"
)

// take registers what a report on one of a node's streams says, as far as the node's grant goes.
func (a *agents) take(ctx context.Context, n state.Node, stream uint64, r *agentapi.Report) error {
	if len(r.Workloads) > grant.MaxWorkloads {
		return status.Errorf(codes.ResourceExhausted, "node %s reports %d workloads, %d are possible", n.Name, len(r.Workloads), grant.MaxWorkloads)
	}
	bound(r, n.Role)
	node := snapshot.Node{Name: n.Name, Role: n.Role}
	if n.Role == snapshot.RoleGateway {
		if err := a.takeGateway(n, r.Gateway); err != nil {
			return err
		}
		node.Gateway = r.Gateway
	}
	accepted, wrong := n.Grant.Judge(n.Name, r.Workloads)
	r.Workloads = accepted
	stands := func() error { _, err := a.standings.node(ctx, n.Name, n.Generation); return err }
	if err := a.register(ctx, stream, node, accepted, stands); err != nil {
		return err
	}
	a.remember(n.Name, wrong)
	return nil
}

func (a *agents) takeGateway(n state.Node, g *snapshot.GatewayInfo) error {
	if g == nil || !n.Grant.Covers(spiffe.SystemNamespace, g.ServiceAccount) {
		return status.Errorf(codes.PermissionDenied, "the token of gateway %s does not grant this service account: make one with 'isthmus token create --role gateway --identity %s/<service account>'", n.Name, spiffe.SystemNamespace)
	}
	first, _, _ := a.d.store.Said(n.Name)
	if err := n.Grant.Gateway(*g, first.Gateway); err != nil {
		return status.Errorf(codes.InvalidArgument, "gateway %s: %v", n.Name, err)
	}
	return nil
}

func (a *agents) register(ctx context.Context, stream uint64, node snapshot.Node, workloads []snapshot.Workload, stands func() error) error {
	err := a.d.store.Register(ctx, stream, node, workloads, stands)
	switch {
	case errors.Is(err, store.ErrSuperseded):
		return status.Error(codes.Aborted, errTakenOver.Error())
	case errors.Is(err, state.ErrRevoked), status.Code(err) == codes.PermissionDenied:
		return status.Errorf(codes.PermissionDenied, "node %s was revoked: join it with a new token", node.Name)
	case err != nil:
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}

// regrant holds what a node that joins again had registered against its new grant. A gateway says anew where it stands.
func (a *agents) regrant(ctx context.Context, g ca.TokenGrant) error {
	_, said, ok := a.d.store.Said(g.Node)
	if !ok {
		return nil
	}
	if g.Role == snapshot.RoleGateway {
		said = nil
	}
	kept, _ := g.Grant.Judge(g.Node, said)
	stands := func() error { _, err := a.standings.node(ctx, g.Node, g.ID); return err }
	return a.register(ctx, a.nextStream(), snapshot.Node{Name: g.Node, Role: g.Role}, kept, stands)
}

// remember keeps what a node's reports say beyond its grant, for the findings.
func (a *agents) remember(node string, wrong []finding.Finding) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Equal(a.refused[node], wrong) {
		return
	}
	if len(wrong) > 0 {
		a.refused[node] = wrong
	} else {
		delete(a.refused, node)
	}
	a.d.loop.reload() // findings are published with a snapshot
}
