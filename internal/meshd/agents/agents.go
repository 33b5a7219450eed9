// Package agents serves the agents of nodes and gateways: they join, get certificates, say what runs with them and are
// told what they need beside Envoy's configuration.
package agents

import (
	"context"
	"crypto/x509"
	"log/slog"
	"net/netip"
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
