package meshd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"reflect"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
)

// maxWorkloads is how many workloads one node may host.
const maxWorkloads = 2000

// agents serves the node and gateway agents.
type agents struct {
	d   *Daemon
	log *slog.Logger

	mu      sync.Mutex // guards all below
	known   map[string]*agent
	refused map[string][]finding.Finding // by node: workloads that its token does not cover
}

// agent is one agent's standing conversation.
type agent struct {
	name   string
	role   snapshot.Role
	report agentapi.Report
	awake  chan struct{}
	next   *agentapi.Instructions // what it should have
}

func newAgents(d *Daemon) *agents {
	return &agents{d: d, log: d.log, known: map[string]*agent{}, refused: map[string][]finding.Finding{}}
}

// Attest trades a join token for a node identity.
func (a *agents) Attest(ctx context.Context, r *agentapi.AttestRequest) (*agentapi.AttestResponse, error) {
	from := "unknown"
	if p, ok := peer.FromContext(ctx); ok {
		from, _, _ = net.SplitHostPort(p.Addr.String())
	}
	at, err := a.d.authority.Attest(ctx, r.Token, r.CSR, from)
	if err != nil {
		a.log.Warn("join refused", "from", from, "error", err)
		return nil, status.Error(codes.PermissionDenied, "the join token is not good (any more), or the certificate request is none: make a new token with 'isthmus token create'")
	}
	a.log.Info("node joined", "node", at.Node, "role", at.Role, "from", from)
	return &agentapi.AttestResponse{Node: at.Node, Role: at.Role, Chain: at.Chain, Roots: at.Roots}, nil
}

// node is the caller as the state knows it now: a revoked node is none.
func (a *agents) node(ctx context.Context) (state.Node, error) {
	name, err := callerNode(ctx, a.d.authority.TrustDomain())
	if err != nil {
		return state.Node{}, err
	}
	n, err := a.d.db.Node(ctx, name)
	switch {
	case errors.Is(err, state.ErrNotFound), err == nil && !n.Revoked.IsZero():
		return state.Node{}, status.Errorf(codes.PermissionDenied, "node %s is not known here (any more): join it with a new token", name)
	case err != nil:
		return state.Node{}, status.Error(codes.Internal, err.Error())
	}
	return n, nil
}

// Sign issues a certificate for the node itself or for a workload that is registered on it, and for no other.
func (a *agents) Sign(ctx context.Context, r *agentapi.SignRequest) (*agentapi.SignResponse, error) {
	n, err := a.node(ctx)
	if err != nil {
		return nil, err
	}
	td, ttl := a.d.authority.TrustDomain(), nodeTTL
	id, err := spiffe.Node(td, n.Name)
	if r.Namespace != "" || r.ServiceAccount != "" {
		if !ca.Granted(n.Identities, r.Namespace, r.ServiceAccount) || !a.hosts(n, r.Namespace, r.ServiceAccount) {
			a.log.Warn("certificate refused", "node", n.Name, "namespace", r.Namespace, "serviceAccount", r.ServiceAccount)
			return nil, status.Errorf(codes.PermissionDenied, "no workload %s/%s is registered on node %s", r.Namespace, r.ServiceAccount, n.Name)
		}
		ttl = a.certificateTTL()
		id, err = spiffe.Workload(td, r.Namespace, r.ServiceAccount)
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	chain, err := a.d.authority.Sign(ctx, r.CSR, id, ttl, n.Name)
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "certificate for %s: %v", id, err)
	}
	a.d.metrics.signed.Inc()
	return &agentapi.SignResponse{Chain: chain, Roots: a.d.authority.Roots()}, nil
}

func (a *agents) certificateTTL() (ttl time.Duration) {
	if p := a.d.loop.published.Load(); p != nil {
		return p.mesh.CertificateTTL
	}
	return 0 // the authority's default
}

// hosts says whether a node registered a workload, or is the gateway, of that service account.
func (a *agents) hosts(n state.Node, namespace, serviceAccount string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	ag := a.known[n.Name]
	if ag == nil {
		return false
	}
	if n.Role == snapshot.RoleGateway {
		return namespace == spiffe.SystemNamespace && ag.report.Gateway != nil && ag.report.Gateway.ServiceAccount == serviceAccount
	}
	return slices.ContainsFunc(ag.report.Workloads, func(w snapshot.Workload) bool {
		return w.Namespace == namespace && w.ServiceAccount == serviceAccount
	})
}

// Sync takes in what an agent reports and tells it what it needs beside Envoy's configuration.
func (a *agents) Sync(stream rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
	ctx := stream.Context()
	n, err := a.node(ctx)
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := a.take(ctx, n, first); err != nil {
		return err
	}
	ag := a.join(n, *first)
	defer a.leave(ag)
	a.log.Info("agent connected", "node", n.Name, "role", n.Role, "workloads", len(first.Workloads))
	failed := make(chan error, 1)
	go func() { failed <- a.listen(ctx, n, ag, stream) }()
	return a.tell(ctx, ag, stream, failed)
}

// listen takes in reports until the stream ends.
func (a *agents) listen(ctx context.Context, n state.Node, ag *agent, stream rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
	for {
		r, err := stream.Recv()
		if err != nil {
			return nil // the agent went
		}
		if err := a.take(ctx, n, r); err != nil {
			return err
		}
		a.mu.Lock()
		ag.report = *r
		a.mu.Unlock()
	}
}

// tell sends instructions whenever they differ from the last.
func (a *agents) tell(ctx context.Context, ag *agent, stream rpc.Stream[agentapi.Instructions, agentapi.Report], failed <-chan error) error {
	var last *agentapi.Instructions
	for {
		a.mu.Lock()
		next := ag.next
		a.mu.Unlock()
		if next != nil && !reflect.DeepEqual(last, next) {
			if err := stream.Send(next); err != nil {
				return err
			}
			last = next
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-ag.awake:
		}
	}
}

// take registers what a report says, without the workloads that the node may not host.
func (a *agents) take(ctx context.Context, n state.Node, r *agentapi.Report) error {
	if len(r.Workloads) > maxWorkloads {
		return status.Errorf(codes.ResourceExhausted, "node %s reports %d workloads, %d are possible", n.Name, len(r.Workloads), maxWorkloads)
	}
	node := snapshot.Node{Name: n.Name, Role: n.Role}
	if n.Role == snapshot.RoleGateway {
		if r.Gateway == nil || !ca.Granted(n.Identities, spiffe.SystemNamespace, r.Gateway.ServiceAccount) {
			return status.Errorf(codes.PermissionDenied, "the token of gateway %s does not grant this service account: make one with 'isthmus token create --role gateway --identity %s/<service account>'", n.Name, spiffe.SystemNamespace)
		}
		node.Gateway = r.Gateway
		r.Workloads = nil
	}
	r.Workloads = a.granted(n, r.Workloads)
	if err := a.d.store.Register(ctx, node, r.Workloads); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}

// granted leaves out, and remembers, the workloads that a node's token does not cover.
func (a *agents) granted(n state.Node, ws []snapshot.Workload) []snapshot.Workload {
	var out []snapshot.Workload
	var refused []finding.Finding
	for _, w := range ws {
		if !ca.Granted(n.Identities, w.Namespace, w.ServiceAccount) {
			refused = append(refused, finding.Finding{
				Code: "ISM0013", Severity: finding.Error, Object: "workload " + w.Namespace + "/" + w.Name, Field: "serviceAccount",
				Message: fmt.Sprintf("node %s may not host service account %s/%s; the workload is not registered", n.Name, w.Namespace, w.ServiceAccount),
				Remedy:  fmt.Sprintf("join the node with a token that grants it: isthmus token create --node %s --identity %s/%s", n.Name, w.Namespace, w.ServiceAccount),
			})
			continue
		}
		w.Node = n.Name
		out = append(out, w)
	}
	slices.SortFunc(out, func(x, y snapshot.Workload) int {
		return slices.Compare([]string{x.Namespace, x.Name}, []string{y.Namespace, y.Name})
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(refused) > 0 {
		a.refused[n.Name] = refused
	} else {
		delete(a.refused, n.Name)
	}
	return out
}

func (a *agents) findings() []finding.Finding {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []finding.Finding
	for _, n := range slices.Sorted(maps.Keys(a.refused)) {
		out = append(out, a.refused[n]...)
	}
	return out
}

func (a *agents) join(n state.Node, r agentapi.Report) *agent {
	ag := &agent{name: n.Name, role: n.Role, report: r, awake: make(chan struct{}, 1)}
	if p := a.d.loop.published.Load(); p != nil {
		ag.next = instructions(p.mesh, n.Name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known[n.Name] = ag
	return ag
}

func (a *agents) leave(ag *agent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[ag.name] == ag {
		delete(a.known, ag.name)
	}
}

// instruct brings every connected agent what the mesh now means for it.
func (a *agents) instruct(mesh *model.Mesh) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, ag := range a.known {
		next := instructions(mesh, name)
		if reflect.DeepEqual(ag.next, next) {
			continue
		}
		ag.next = next
		select {
		case ag.awake <- struct{}{}:
		default:
		}
	}
}

// reports are what connected agents last said, by node.
func (a *agents) reports() map[string]agentapi.Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[string]agentapi.Report, len(a.known))
	for name, ag := range a.known {
		out[name] = ag.report
	}
	return out
}
