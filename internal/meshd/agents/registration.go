package agents

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/kind"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/store"
)

// maxRecorded limits the recorded refusals of one report. The findings contain all of them.
const maxRecorded = 10

// take registers the content of a node's report, as far as the node's grant allows.
func (a *Agents) take(
	ctx context.Context, caller door.Caller, n state.Node, stream uint64, r *agentapi.Report,
) error {
	if len(r.Workloads) > grant.MaxWorkloads {
		return status.Errorf(codes.ResourceExhausted, "node %s reports %d workloads, %d are possible", n.Name,
			len(r.Workloads), grant.MaxWorkloads)
	}
	bound(r, n.Role)
	node := snapshot.Node{Name: n.Name, Role: n.Role, Builtin: r.Builtin}
	if n.Role == snapshot.RoleGateway {
		if err := a.takeGateway(caller, n, r.Gateway); err != nil {
			return err
		}
		node.Gateway, node.Reached = r.Gateway, a.reached(caller, n.Name)
	}
	accepted, wrong := n.Grant.Judge(n.Name, r.Workloads)
	r.Workloads = accepted
	stands := func() error { _, err := a.Standing.Node(ctx, n.Name, n.Generation); return err }
	if err := a.register(ctx, stream, node, accepted, stands); err != nil {
		return err
	}
	a.remember(caller, reported(n.Name, r, wrong))
	a.Reported(n.Name, r)
	return nil
}

// reached returns the address by which a gateway's agent reaches this control plane. It omits link-local addresses,
// which an Envoy could not use.
func (a *Agents) reached(caller door.Caller, node string) netip.Addr {
	if at := caller.At.WithZone(""); at.IsValid() && !at.IsUnspecified() && !at.IsLinkLocalUnicast() {
		return at
	}
	before, _, _ := a.Store.Said(node)
	return before.Reached
}

func (a *Agents) takeGateway(caller door.Caller, n state.Node, g *snapshot.GatewayInfo) error {
	if g == nil {
		return status.Errorf(codes.InvalidArgument, "gateway %s does not say where it stands", n.Name)
	}
	if account := spiffe.SystemNamespace + "/" + g.ServiceAccount; !n.Grant.Covers(spiffe.SystemNamespace,
		g.ServiceAccount) {
		why := fmt.Sprintf("its token does not grant the service account %s", account)
		a.remember(caller, gatewayRefused(n.Name, "ISM0013", "serviceAccount", why))
		return status.Errorf(codes.PermissionDenied, "gateway %s: %s, but %s: correct "+
			"gateway.serviceAccount in its settings, "+
			"or empty its stateDir and start it with another token (isthmus token create --role gateway "+
			"--node %s --identity %s)",
			n.Name, why, strings.Join(n.Grant.Identities, " "), n.Name, account)
	}
	first, _, _ := a.Store.Said(n.Name)
	if err := n.Grant.Gateway(*g, first.Gateway); err != nil {
		a.remember(caller, gatewayRefused(n.Name, "ISM0241", "addresses", err.Error()))
		return status.Errorf(codes.InvalidArgument, "gateway %s: %v", n.Name, err)
	}
	return nil
}

// gatewayRefused returns the report about a gateway that has no part in the mesh because of what it reports.
func gatewayRefused(node string, code finding.Code, field, why string) snapshot.Report {
	return snapshot.Report{Node: node, Refused: []finding.Finding{finding.New(
		code, kind.Gateway(node), field, why+"; what it reports is refused",
		"correct its settings, or empty its stateDir and start it with a token that grants what they say: "+
			"isthmus token create --role gateway --node "+node,
	)}}
}

func (a *Agents) register(
	ctx context.Context, stream uint64, node snapshot.Node, workloads []snapshot.Workload, stands func() error,
) error {
	err := a.Store.Register(ctx, stream, node, workloads, stands)
	switch {
	case errors.Is(err, store.ErrSuperseded):
		return status.Error(codes.Aborted, errTakenOver.Error())
	case errors.Is(err, state.ErrRevoked), status.Code(err) == codes.PermissionDenied:
		return status.Errorf(codes.PermissionDenied,
			"node %s was revoked: to let it in again, empty its stateDir and start it with a new token (isthmus "+
				"token create --node %s)",
			node.Name, node.Name)
	case err != nil:
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}

// regrant checks the registration of a node that joins again against its new grant. A gateway must report its addresses
// again.
func (a *Agents) regrant(ctx context.Context, g ca.TokenGrant) error {
	before, said, ok := a.Store.Said(g.Node)
	if !ok {
		return nil
	}
	if g.Role == snapshot.RoleGateway {
		said = nil
	}
	kept, _ := g.Grant.Judge(g.Node, said)
	stands := func() error { _, err := a.Standing.Node(ctx, g.Node, g.ID); return err }
	stream, err := a.State.BeginConversation(ctx, g.Node, g.ID)
	if err != nil {
		return err
	}
	return a.register(ctx, stream, snapshot.Node{Name: g.Node, Role: g.Role, Builtin: before.Builtin}, kept, stands)
}

// reported returns what a node's report says is wrong with its own workloads, together with what its grant does not
// cover.
func reported(node string, r *agentapi.Report, refused []finding.Finding) snapshot.Report {
	hosts := make(map[string]bool, len(r.Workloads))
	for _, w := range r.Workloads {
		hosts[w.Namespace+"/"+w.Name] = true
	}
	out := snapshot.Report{Node: node, Refused: refused}
	for _, t := range r.Troubles {
		if hosts[t.Workload] {
			out.Troubles = append(out.Troubles, t)
		}
	}
	for _, o := range r.Outside {
		if hosts[o.Workload] {
			out.Outside = append(out.Outside, o)
		}
	}
	return out
}

// remember stores what is wrong by a node's report, and records newly reported violations of its grant.
func (a *Agents) remember(caller door.Caller, r snapshot.Report) {
	clashes, before := a.Store.Clashes(r.Node), a.Store.Report(r.Node).Refused
	a.mu.Lock()
	recorded := 0
	for _, f := range slices.Concat(r.Refused, clashes) {
		if recorded < maxRecorded && !slices.Contains(before, f) && !slices.Contains(a.clashed[r.Node], f) {
			recorded++
			a.refuse(caller, r.Node, f.Object.String(), string(f.Code)+": "+f.Message)
		}
	}
	a.clashed[r.Node] = clashes // the store's snapshots contain these
	a.mu.Unlock()
	a.Store.SetReport(r)
}

// Forgive forgets the violations of a node.
func (a *Agents) Forgive(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.clashed, node)
}

// refuse records what a node reported beyond its grant.
func (a *Agents) refuse(caller door.Caller, node, object, why string) {
	a.Refused(state.Event{
		Actor: kind.Node(node).String(), From: caller.From(), Action: "node register", Object: object, Detail: why,
	})
}
