package agents

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/grant"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/store"
)

// maxRecorded is how many refusals of one report are recorded. The findings have them all.
const maxRecorded = 10

// take registers what a report on one of a node's streams says, as far as the node's grant goes.
func (a *Agents) take(
	ctx context.Context, caller door.Caller, n state.Node, stream uint64, r *agentapi.Report,
) error {
	if len(r.Workloads) > grant.MaxWorkloads {
		return status.Errorf(codes.ResourceExhausted, "node %s reports %d workloads, %d are possible", n.Name,
			len(r.Workloads), grant.MaxWorkloads)
	}
	bound(r, n.Role)
	node := snapshot.Node{Name: n.Name, Role: n.Role}
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
	a.remember(caller, n.Name, wrong)
	a.note(n.Name, troubles(n.Name, r, a.workloadsAt()))
	a.Reported(n.Name, r)
	return nil
}

// reached is the address by which the agent of a gateway reaches this control plane, for what peers say too. An address that
// is good on one link alone is none: an Envoy could not use it.
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
		a.remember(caller, n.Name, []finding.Finding{gatewayOut(n.Name, "ISM0013", "serviceAccount", why)})
		return status.Errorf(codes.PermissionDenied, "gateway %s: %s, but %s: correct "+
			"gateway.serviceAccount in its settings, "+
			"or empty its stateDir and start it with another token (isthmus token create --role gateway "+
			"--node %s --identity %s)",
			n.Name, why, strings.Join(n.Grant.Identities, " "), n.Name, account)
	}
	first, _, _ := a.Store.Said(n.Name)
	if err := n.Grant.Gateway(*g, first.Gateway); err != nil {
		a.remember(caller, n.Name, []finding.Finding{gatewayOut(n.Name, "ISM0241", "addresses", err.Error())})
		return status.Errorf(codes.InvalidArgument, "gateway %s: %v", n.Name, err)
	}
	return nil
}

// gatewayOut is the finding of a gateway that has no part in the mesh for what it says of itself.
func gatewayOut(node, code, field, why string) finding.Finding {
	return finding.Finding{
		Severity: finding.Error, Code: code, Object: "gateway " + node, Field: field,
		Message: why + "; what it reports is refused",
		Remedy: "correct its settings, or empty its stateDir and start it with a token that grants what they say: " +
			"isthmus token create --role gateway --node " + node,
	}
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

// regrant holds what a node that joins again had registered against its new grant. A gateway says anew where it stands.
func (a *Agents) regrant(ctx context.Context, g ca.TokenGrant) error {
	_, said, ok := a.Store.Said(g.Node)
	if !ok {
		return nil
	}
	if g.Role == snapshot.RoleGateway {
		said = nil
	}
	kept, _ := g.Grant.Judge(g.Node, said)
	stands := func() error { _, err := a.Standing.Node(ctx, g.Node, g.ID); return err }
	return a.register(ctx, a.nextStream(), snapshot.Node{Name: g.Node, Role: g.Role}, kept, stands)
}

// remember keeps what a node's reports say beyond its grant, for the findings, and records what it had not said before.
func (a *Agents) remember(caller door.Caller, node string, wrong []finding.Finding) {
	clashes := a.Store.Clashes(node)
	a.mu.Lock()
	defer a.mu.Unlock()
	recorded := 0
	for _, f := range slices.Concat(wrong, clashes) {
		if recorded < maxRecorded && !slices.Contains(a.refused[node], f) && !slices.Contains(a.clashed[node], f) {
			recorded++
			a.refuse(caller, node, f.Object, f.Code+": "+f.Message)
		}
	}
	a.clashed[node] = clashes // which the store's snapshots show
	if slices.Equal(a.refused[node], wrong) {
		return
	}
	a.refused[node] = wrong
	a.Changed() // findings are published with a snapshot
}

// workloadsAt says which workload is registered with an address; empty for none. The registry is read once, if at all.
func (a *Agents) workloadsAt() func(netip.Addr) string {
	by := sync.OnceValue(func() map[netip.Addr]string {
		out := map[netip.Addr]string{}
		for _, w := range a.Store.Snapshot().Registry.Workloads {
			for _, addr := range w.Addresses {
				out[addr] = w.Namespace + "/" + w.Name
			}
		}
		return out
	})
	return func(addr netip.Addr) string { return by()[addr.Unmap()] }
}

// note keeps which of a node's workloads are not served, for the findings.
func (a *Agents) note(node string, now []finding.Finding) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Equal(a.trouble[node], now) {
		return
	}
	a.trouble[node] = now
	a.Changed()
}

// forgive takes back what is remembered of a node.
func (a *Agents) forgive(node string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.clashed, node)
	if len(a.refused[node])+len(a.trouble[node]) > 0 {
		a.Changed()
	}
	delete(a.refused, node)
	delete(a.trouble, node)
}

// refuse records what a node said and may not say.
func (a *Agents) refuse(caller door.Caller, node, object, why string) {
	a.Refused(state.Event{
		Actor: "node " + node, From: caller.From(), Action: "node register", Object: object, Detail: why,
	})
}
