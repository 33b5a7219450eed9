package meshd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
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

// agents serves the node and gateway agents.
type agents struct {
	d         *Daemon
	log       *slog.Logger
	refusals  refusals
	standings *standings
	endings   endings
	rations   rations
	// administrators' certificates of which agents are told; those that ended may be among them
	revoked atomic.Pointer[[]state.Admin]
	trials  trials

	mu      sync.Mutex // guards all below
	streams uint64     // how many have begun
	known   map[string]*agent
	refused map[string][]finding.Finding // by node: what its reports say beyond its grant
	trouble map[string][]finding.Finding // by node: its workloads that are not served
	clashed map[string][]finding.Finding // by node: those of its workloads that clash, as far as recorded
}

// agent is one agent's standing conversation.
type agent struct {
	name   string
	stream uint64 // its number: the newest stays
	report agentapi.Report
	awake  chan struct{}
	next   *agentapi.Instructions // what it should have
	cut    context.CancelCauseFunc
}

var errTakenOver = errors.New("another stream of this agent took over")

func newAgents(d *Daemon) *agents {
	return &agents{
		d: d, log: d.log, refusals: refusals{from: map[netip.Addr]*rate.Limiter{}}, standings: newStandings(d.db),
		endings: endings{log: d.log}, rations: rations{of: map[string]*ration{}},
		trials: trials{open: map[string]*judge{}}, known: map[string]*agent{}, refused: map[string][]finding.Finding{},
		clashed: map[string][]finding.Finding{}, trouble: map[string][]finding.Finding{},
	}
}

// Attest trades a join token for a node identity.
func (a *agents) Attest(ctx context.Context, r *agentapi.AttestRequest) (*agentapi.AttestResponse, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	from, source := c.From(), c.Net()
	if a.refusals.enough(source) {
		return nil, status.Error(codes.ResourceExhausted, "too many join tokens from this address were refused: wait a minute")
	}
	if err := a.endings.flush(ctx); err != nil {
		return nil, status.Errorf(codes.Unavailable, "nobody can join before what was revoked is written down: %v", err)
	}
	at, err := a.d.authority.Attest(ctx, r.Token, r.CSR, from)
	if at.Node != "" { // an earlier generation of the node has ended: what it has open ends
		a.standings.forget(at.Node)
		a.d.openings.lookAt(ctx, at.Node)
	}
	if err != nil {
		a.refusals.count(source)
		if at.Node != "" {
			err = errors.Join(err, a.d.record(ctx, joined(at, from, state.Failed)))
		} else if !errors.Is(err, ca.ErrToken) || errors.Is(err, ca.ErrTokenMalformed) { // other refusals the state has recorded
			a.d.refusals.Add(state.Event{Actor: state.Stranger, From: source.String(), Action: "node join", Detail: err.Error()})
		}
		a.log.Warn("join refused", "from", from, "error", err)
		return nil, status.Error(codes.PermissionDenied, "the join token is not good (any more), or the certificate request is none")
	}
	if err := a.regrant(ctx, at.TokenGrant); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := a.d.record(ctx, joined(at, from, state.OK)); err != nil {
		return nil, status.Errorf(codes.Unavailable, "node %s gets no certificate, because that cannot be recorded: %v",
			at.Node, err)
	}
	a.log.Info("node joined", "node", at.Node, "role", at.Role, "from", from)
	return &agentapi.AttestResponse{Node: at.Node, Role: at.Role, Chain: at.Chain, Roots: at.Roots}, nil
}

func joined(at ca.Attestation, from, outcome string) state.Event {
	return state.Event{
		Actor: "node " + at.Node, From: from, Action: "node join", Object: "node " + at.Node, Outcome: outcome,
		Detail: fmt.Sprintf("role %s, join token %s", at.Role, at.ID),
	}
}

// node is the caller as the state knows it now: a revoked node is none.
func (a *agents) node(ctx context.Context) (state.Node, error) {
	name, err := callerNode(ctx, a.d.authority.TrustDomain())
	if err != nil {
		return state.Node{}, err
	}
	c, _ := tlsOf(ctx)
	if err := a.d.judge(ctx, c); err != nil {
		return state.Node{}, err
	}
	return a.standings.node(ctx, name, ca.Generation(c.VerifiedChains[0][0]))
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
		if !n.Grant.Covers(r.Namespace, r.ServiceAccount) || !a.d.store.Hosts(n.Name, r.Namespace, r.ServiceAccount) {
			a.log.Warn("certificate refused", "node", n.Name, "namespace", finding.Cut(r.Namespace),
				"serviceAccount", finding.Cut(r.ServiceAccount))
			return nil, status.Errorf(codes.PermissionDenied, "no workload %s/%s is registered on node %s",
				finding.Cut(r.Namespace), finding.Cut(r.ServiceAccount), n.Name)
		}
		ttl = a.certificateTTL()
		id, err = spiffe.Workload(td, r.Namespace, r.ServiceAccount)
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	ration := a.rations.node(n.Name)
	if err := ration.certificate(id.String(), cmp.Or(ttl, nodeTTL), a.hosted(n), a.d.now()); err != nil {
		ration.warn.Do(func() {
			a.log.Warn("a node asks for more certificates than it needs: is it restarted again and "+
				"again, or somebody else's?", "node", n.Name, "identity", id.String())
		})
		return nil, err
	}
	leave, err := ration.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	chain, err := a.d.authority.Sign(ctx, r.CSR, id, ttl, ca.Holder{Node: n.Name, Generation: n.Generation})
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "certificate for %s: %v", id, err)
	}
	if _, err := a.node(ctx); err != nil {
		return nil, err // revoked meanwhile: what was signed does not leave
	}
	a.d.metrics.signed.Inc()
	return &agentapi.SignResponse{Chain: chain, Roots: a.d.authority.Roots()}, nil
}

// hosted is how many workloads a node has registered; a gateway is one.
func (a *agents) hosted(n state.Node) int {
	if n.Role == snapshot.RoleGateway {
		return 1
	}
	_, said, _ := a.d.store.Said(n.Name)
	return len(said)
}

func (a *agents) certificateTTL() (ttl time.Duration) {
	if p := a.d.loop.published.Load(); p != nil {
		return p.mesh.CertificateTTL
	}
	return 0 // the authority's default
}

// Sync takes in what an agent reports and tells it what it needs beside Envoy's configuration. It ends when the agent goes,
// when it comes again, or when its certificate is good no more, even if the agent does not read.
func (a *agents) Sync(stream rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
	ctx, cut := context.WithCancelCause(stream.Context())
	defer cut(nil)
	n, err := a.node(ctx)
	if err != nil {
		return err
	}
	number := a.nextStream()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if a.rations.node(n.Name).reports.Wait(ctx) != nil {
		return nil
	}
	if err := a.take(ctx, n, number, first); err != nil {
		return err
	}
	ag, err := a.join(n, number, *first, cut)
	if err != nil {
		return err
	}
	defer a.leave(ag)
	a.log.Info("agent connected", "node", n.Name, "role", n.Role, "workloads", len(first.Workloads))
	ended := make(chan error, 2)
	go func() { ended <- a.listen(ctx, ag, stream) }()
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

// listen takes in reports until the stream ends: of those that come faster than they may, the newest.
func (a *agents) listen(
	ctx context.Context, ag *agent, stream rpc.Stream[agentapi.Instructions, agentapi.Report],
) error {
	ration := a.rations.node(ag.name)
	newest := make(chan *agentapi.Report, 1)
	go func() {
		defer close(newest)
		for ration.reads.Wait(ctx) == nil {
			r, err := stream.Recv()
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
	for {
		if ration.reports.Wait(ctx) != nil {
			return nil
		}
		r, more := <-newest
		if !more || ctx.Err() != nil {
			return nil // the agent went, or came again
		}
		n, err := a.node(ctx)
		if err != nil {
			return err
		}
		if err := a.take(ctx, n, ag.stream, r); err != nil {
			return err
		}
		a.mu.Lock()
		ag.report = *r
		a.mu.Unlock()
		ag.wake() // what of the report does not stand
	}
}

// refusedOf is what of a node's report does not stand, as text.
func (a *agents) refusedOf(node string) []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []string
	for _, f := range a.refused[node] {
		out = append(out, f.String())
	}
	for _, f := range a.clashed[node] { // a node is not told who else is in the mesh: it could ask about every address
		f.Message = "another workload of the mesh has its name, or an address that it gives; it is not registered"
		f.Remedy = "correct the node's settings; the control plane's findings say which (isthmus status --findings)"
		out = append(out, f.String())
	}
	return out
}

// wake has the agent told what it should have. It never blocks.
func (ag *agent) wake() {
	select {
	case ag.awake <- struct{}{}:
	default:
	}
}

// tell sends instructions whenever they differ from the last.
func (a *agents) tell(ctx context.Context, ag *agent, stream rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
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

// identify names the proxy behind a discovery stream: the node's, or that of a workload which this node registered with a
// proxy of its own. A node can name no other's.
func (a *agents) identify(ctx context.Context) (string, error) {
	n, err := a.node(ctx)
	if err != nil {
		return "", err
	}
	asked := metadata.ValueFromIncomingContext(ctx, agentapi.WorkloadKey)
	if len(asked) == 0 {
		return n.Name, nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if ag := a.known[n.Name]; ag != nil && len(asked) == 1 {
		for _, w := range ag.report.Workloads {
			if id := (model.WorkloadID{Namespace: w.Namespace, Name: w.Name}); w.Sidecar && id.String() == asked[0] {
				return model.SidecarName(n.Name, id), nil
			}
		}
	}
	return "", status.Errorf(codes.PermissionDenied, "node %s has registered no workload %q with a proxy of its own", n.Name, asked)
}

func (a *agents) findings() []finding.Finding {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []finding.Finding
	for _, n := range slices.Sorted(maps.Keys(a.refused)) {
		out = append(out, a.refused[n]...)
	}
	for _, n := range slices.Sorted(maps.Keys(a.trouble)) {
		out = append(out, a.trouble[n]...)
	}
	return out
}

// nextStream numbers a conversation in the order in which it began.
func (a *agents) nextStream() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.streams++
	return a.streams
}

// join makes a stream the agent's only one, unless a newer one is.
func (a *agents) join(n state.Node, stream uint64, r agentapi.Report, cut context.CancelCauseFunc) (*agent, error) {
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
	if p := a.d.loop.published.Load(); p != nil { // with mu held: what is published later finds the agent in known
		ag.next = p.briefing.of(n.Name)
	}
	return ag, nil
}

func (a *agents) leave(ag *agent) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[ag.name] == ag {
		delete(a.known, ag.name)
	}
}

// instruct brings every connected agent what the mesh now means for it.
func (a *agents) instruct(before *published, now *briefing) {
	var was *briefing
	if before != nil {
		was = before.briefing
	}
	a.mu.Lock()
	defer a.mu.Unlock()
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
