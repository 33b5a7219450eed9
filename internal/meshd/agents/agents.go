// Package agents serves the agents of nodes and gateways: they join, get certificates, say what runs with them and are
// told what they need beside Envoy's configuration.
package agents

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/meshd/standing"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/rpc"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/wellknown"
)

// Authority lets nodes in and issues certificates.
type Authority interface {
	Attest(ctx context.Context, token string, csr []byte, from string) (ca.Attestation, error)
	Sign(ctx context.Context, csr []byte, id spiffe.ID, ttl time.Duration, holder ca.Holder) ([][]byte, error)
	Roots() []byte
	RootCertificates() []*x509.Certificate
}

// State is what is kept of nodes and administrators.
type State interface {
	Node(ctx context.Context, name string) (state.Node, error)
	RevokeNode(ctx context.Context, name string, now time.Time) error
	BeginConversation(ctx context.Context, node, generation string) (uint64, error)
	sharedState
	CertsUnder(ctx context.Context, root string, now time.Time) ([]state.CertUse, error)
	Admins(context.Context) ([]state.Admin, error)
	Record(context.Context, state.Event) error
}

// Store takes in what nodes register.
type Store interface {
	Snapshot() *snapshot.Snapshot
	Nodes() []string
	Said(node string) (snapshot.Node, []snapshot.Workload, bool)
	Hosts(node, namespace, serviceAccount string) bool
	Clashes(node string) []finding.Finding
	Report(node string) snapshot.Report
	SetReport(snapshot.Report)
	Register(ctx context.Context, stream uint64, n snapshot.Node, ws []snapshot.Workload, stands func() error) error
	Forget(node string)
	SetSilentNodes([]snapshot.SilentNode)
}

// Config of Agents. All fields are needed.
type Config struct {
	TrustDomain spiffe.TrustDomain
	Authority   Authority
	State       State
	Store       Store
	Standing    *standing.Standing
	Endings     *standing.Endings
	Door        *door.Door
	// NodeTTL is the life of a node's own certificate.
	NodeTTL time.Duration
	// Refused records what a node said and may not say. It never waits.
	Refused func(state.Event)
	// Reported is told how a node's Envoys are.
	Reported func(node string, r *agentapi.Report)
	// Holder names this control plane to others of the mesh; empty: there can be none. Lives says whether another one
	// does.
	Holder string
	Lives  func(holder string) bool
	// Signed counts certificates.
	Signed func()
	Log    *slog.Logger
	Now    func() time.Time
}

// Agents serves the node and gateway agents.
type Agents struct {
	Config
	refusals refusals
	rations  rations
	trials   trials
	// administrators' certificates of which agents are told; those that ended may be among them
	revoked atomic.Pointer[[]state.Admin]

	mu       sync.Mutex // guards all below
	briefing *briefing  // nil before there is any
	known    map[string]*agent
	remote   map[string]remote            // agents that speak to other control planes, by node
	clashed  map[string][]finding.Finding // by node: those of its workloads that clash, as far as recorded
}

// agent is one agent's standing conversation.
type agent struct {
	name     string
	stream   uint64 // its number: the newest stays
	report   agentapi.Report
	awake    chan struct{}
	next     *agentapi.Instructions // what it should have
	cut      context.CancelCauseFunc
	shared   []byte // what the other control planes were told, of the goroutine that listens
	unshared bool   // what it said since could not be shared
}

var errTakenOver = errors.New("another stream of this agent took over")

// New makes Agents that know which administrators were revoked before.
func New(ctx context.Context, c Config) (*Agents, error) {
	a := &Agents{
		Config: c, refusals: refusals{from: map[netip.Addr]*rate.Limiter{}}, rations: rations{of: map[string]*ration{}},
		trials: trials{open: map[string]*judge{}}, known: map[string]*agent{}, remote: map[string]remote{},
		clashed: map[string][]finding.Finding{},
	}
	return a, a.ReloadAll(ctx)
}

// Run has the store know which nodes are silent, until ctx ends.
func (a *Agents) Run(ctx context.Context) error { return a.watchHeartbeats(ctx) }

// Ask asks a proxy's agent whether its Envoy could live with these resources. A contain.Refusal is Envoy's; any other
// error says that there is no verdict.
func (a *Agents) Ask(ctx context.Context, proxy string, resources []*envoy.Resource) error {
	return a.trials.try(ctx, proxy, resources)
}

// Attest trades a join token for a node identity.
func (a *Agents) Attest(ctx context.Context, r *agentapi.AttestRequest) (*agentapi.AttestResponse, error) {
	c, err := door.Of(ctx)
	if err != nil {
		return nil, err
	}
	from, source := c.From(), c.Net()
	if a.refusals.enough(source) {
		return nil, status.Error(codes.ResourceExhausted,
			"too many join tokens from this address were refused: wait a minute")
	}
	if err := a.Endings.Flush(ctx); err != nil {
		return nil, status.Errorf(codes.Unavailable, "nobody can join before what was revoked is written down: %v", err)
	}
	at, err := a.Authority.Attest(ctx, r.Token, r.CSR, from)
	if at.Node != "" { // an earlier generation of the node has ended: what it has open ends
		a.Standing.Forget(at.Node)
		a.Door.LookAt(ctx, at.Node)
	}
	if err != nil {
		a.refusals.count(source)
		if at.Node != "" {
			err = errors.Join(err, a.record(ctx, joined(at, from, state.Failed)))
			// other refusals the state has recorded
		} else if !errors.Is(err, ca.ErrToken) || errors.Is(err, ca.ErrTokenMalformed) {
			a.Refused(state.Event{
				Actor: state.Stranger, From: source.String(), Action: "node join",
				Detail: err.Error(),
			})
		}
		a.Log.Warn("join refused", "from", from, "error", err)
		return nil, status.Error(codes.PermissionDenied,
			"the join token is not good (any more), or the certificate request is none")
	}
	if err := a.regrant(ctx, at.TokenGrant); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	if err := a.record(ctx, joined(at, from, state.OK)); err != nil {
		return nil, status.Errorf(codes.Unavailable, "node %s gets no certificate, because that cannot be recorded: %v",
			at.Node, err)
	}
	a.Log.Info("node joined", "node", at.Node, "role", at.Role, "from", from)
	return &agentapi.AttestResponse{Node: at.Node, Role: at.Role, Chain: at.Chain, Roots: at.Roots}, nil
}

func joined(at ca.Attestation, from, outcome string) state.Event {
	return state.Event{
		Actor: "node " + at.Node, From: from, Action: "node join", Object: "node " + at.Node, Outcome: outcome,
		Detail: fmt.Sprintf("role %s, join token %s", at.Role, at.ID),
	}
}

// node is the caller as the state knows it now: a revoked node is none.
func (a *Agents) node(ctx context.Context, c door.Caller) (state.Node, error) {
	if c.Kind != door.Node || c.ID.TrustDomain() != a.TrustDomain {
		return state.Node{}, status.Errorf(codes.PermissionDenied, "%s is no node of this mesh", c.Actor())
	}
	if err := a.Standing.Judge(ctx, c); err != nil {
		return state.Node{}, err
	}
	return a.Standing.Node(ctx, c.Name, c.Certificate.Generation)
}

// Sign issues a certificate for the node itself or for a workload that is registered on it, and for no other.
func (a *Agents) Sign(ctx context.Context, r *agentapi.SignRequest) (*agentapi.SignResponse, error) {
	caller, err := door.Of(ctx)
	if err != nil {
		return nil, err
	}
	n, err := a.node(ctx, caller)
	if err != nil {
		return nil, err
	}
	td, ttl := a.TrustDomain, a.NodeTTL
	id, err := spiffe.Node(td, n.Name)
	if r.Namespace != "" || r.ServiceAccount != "" {
		if !n.Grant.Covers(r.Namespace, r.ServiceAccount) || !a.Store.Hosts(n.Name, r.Namespace, r.ServiceAccount) {
			a.Log.Warn("certificate refused", "node", n.Name, "namespace", finding.Cut(r.Namespace),
				"service_account", finding.Cut(r.ServiceAccount))
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
	if err := ration.certificate(id.String(), cmp.Or(ttl, a.NodeTTL), a.hosted(n), a.Now()); err != nil {
		ration.warn.Do(func() {
			a.Log.Warn("a node asks for more certificates than it needs: is it restarted again and "+
				"again, or somebody else's?", "node", n.Name, "identity", id.String())
		})
		return nil, err
	}
	leave, err := ration.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	chain, err := a.Authority.Sign(ctx, r.CSR, id, ttl, ca.Holder{Node: n.Name, Generation: n.Generation})
	if errors.Is(err, state.ErrRevoked) { // another control plane knows it already
		return nil, status.Errorf(codes.PermissionDenied, "node %s was revoked, or has joined anew", n.Name)
	}
	if err != nil {
		return nil, status.Errorf(codes.InvalidArgument, "certificate for %s: %v", id, err)
	}
	if _, err := a.node(ctx, caller); err != nil {
		return nil, err // revoked meanwhile: what was signed does not leave
	}
	a.Signed()
	return &agentapi.SignResponse{Chain: chain, Roots: a.Authority.Roots()}, nil
}

// hosted is how many workloads a node has registered; a gateway is one.
func (a *Agents) hosted(n state.Node) int {
	if n.Role == snapshot.RoleGateway {
		return 1
	}
	_, said, _ := a.Store.Said(n.Name)
	return len(said)
}

func (a *Agents) certificateTTL() (ttl time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.briefing != nil {
		return a.briefing.mesh.CertificateTTL
	}
	return 0 // the authority's default
}

// Sync takes in what an agent reports and tells it what it needs beside Envoy's configuration. It ends when the agent
// goes, when it comes again, or when its certificate is good no more, even if the agent does not read.
func (a *Agents) Sync(stream rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
	ctx, cut := context.WithCancelCause(stream.Context())
	defer cut(nil)
	caller, err := door.Of(ctx)
	if err != nil {
		return err
	}
	n, err := a.node(ctx, caller)
	if err != nil {
		return err
	}
	number, err := a.State.BeginConversation(ctx, n.Name, n.Generation)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if a.rations.node(n.Name).reports.Wait(ctx) != nil {
		return nil
	}
	if err := a.take(ctx, caller, n, number, first); err != nil {
		return err
	}
	ag, err := a.join(n, number, *first, cut)
	if err != nil {
		return err
	}
	defer a.leave(ag)
	if err := a.share(ctx, ag); err != nil {
		return err
	}
	a.Log.Info("agent connected", "node", n.Name, "role", n.Role, "workloads", len(first.Workloads))
	ended := make(chan error, 2)
	go func() { ended <- a.listen(ctx, caller, ag, stream) }()
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
func (a *Agents) listen(
	ctx context.Context, caller door.Caller, ag *agent, stream rpc.Stream[agentapi.Instructions, agentapi.Report],
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
		n, err := a.node(ctx, caller)
		if err != nil {
			return err
		}
		if err := a.take(ctx, caller, n, ag.stream, r); err != nil {
			return err
		}
		a.mu.Lock()
		ag.report = *r
		a.mu.Unlock()
		ag.wake() // what of the report does not stand
		if err := a.share(ctx, ag); err != nil {
			return err
		}
	}
}

// refusedOf is what of a node's report does not stand, as text.
func (a *Agents) refusedOf(node string) []string {
	var out []string
	for _, f := range a.Store.Report(node).Refused {
		out = append(out, f.String())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
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
func (a *Agents) tell(ctx context.Context, ag *agent, stream rpc.Stream[agentapi.Instructions, agentapi.Report]) error {
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

// Identify names the proxy behind a discovery stream: the node's, or that of a workload which this node registered with
// a proxy of its own. A node can name no other's.
func (a *Agents) Identify(ctx context.Context) (string, error) {
	caller, err := door.Of(ctx)
	if err != nil {
		return "", err
	}
	n, err := a.node(ctx, caller)
	if err != nil {
		return "", err
	}
	asked := metadata.ValueFromIncomingContext(ctx, wellknown.WorkloadKey)
	if len(asked) == 0 {
		return n.Name, nil
	}
	if report, ok := a.report(n.Name); ok && len(asked) == 1 {
		for _, w := range report.Workloads {
			if id := (model.WorkloadID{Namespace: w.Namespace, Name: w.Name}); w.Sidecar && id.String() == asked[0] {
				return model.SidecarName(n.Name, id), nil
			}
		}
	}
	return "", status.Errorf(codes.PermissionDenied, "node %s has registered no workload %q with a proxy of its own",
		n.Name, asked)
}

// CanTry says whether a node's agent can be asked.
func (a *Agents) CanTry(node string) bool {
	a.trials.mu.Lock()
	defer a.trials.mu.Unlock()
	return a.trials.open[node] != nil
}

// record writes an event of what does not come by one of the door's methods that are recorded.
func (a *Agents) record(ctx context.Context, e state.Event) error {
	e.Time = a.Now()
	return a.State.Record(context.WithoutCancel(ctx), e)
}

// join makes a stream the agent's only one, unless a newer one is.
func (a *Agents) join(n state.Node, stream uint64, r agentapi.Report, cut context.CancelCauseFunc) (*agent, error) {
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
	if a.briefing != nil { // with mu held: what is published later finds the agent in known
		ag.next = a.briefing.of(n.Name)
	}
	return ag, nil
}

func (a *Agents) leave(ag *agent) {
	a.mu.Lock()
	if a.known[ag.name] == ag {
		delete(a.known, ag.name)
	}
	a.mu.Unlock()
	a.unshare(ag)
}

// Instruct brings every connected agent what the mesh now means for it.
func (a *Agents) Instruct(mesh *model.Mesh) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was := a.briefing
	now := newBriefing(was, mesh)
	a.briefing = now
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
