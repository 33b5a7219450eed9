// Package agents serves the agents of nodes and gateways. They join, get certificates, report what runs on their hosts,
// and receive what they need besides Envoy's configuration.
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

// Authority admits nodes and issues certificates.
type Authority interface {
	Attest(ctx context.Context, token string, csr []byte, from string) (ca.Attestation, error)
	Sign(ctx context.Context, csr []byte, id spiffe.ID, ttl time.Duration, holder ca.Holder) ([][]byte, error)
	Roots() []byte
	RootCertificates() []*x509.Certificate
}

// State is the stored data about nodes and administrators.
type State interface {
	Node(ctx context.Context, name string) (state.Node, error)
	RevokeNode(ctx context.Context, name string, now time.Time) error
	BeginConversation(ctx context.Context, node, generation string) (uint64, error)
	sharedState
	CertsUnder(ctx context.Context, root string, now time.Time) ([]state.CertUse, error)
	Admins(context.Context) ([]state.Admin, error)
	Record(context.Context, state.Event) error
}

// Store receives what nodes register.
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

// Config of Agents. All fields are required.
type Config struct {
	TrustDomain spiffe.TrustDomain
	Authority   Authority
	State       State
	Store       Store
	Standing    *standing.Standing
	Pending     *standing.Pending
	Door        *door.Door
	// NodeTTL is the lifetime of a node's own certificate.
	NodeTTL time.Duration
	// Refused records what a node reported beyond its grant. It must not block.
	Refused func(state.Event)
	// Reported receives the state of a node's Envoys.
	Reported func(node string, r *agentapi.Report)
	// Holder is the name of this control plane for others of the mesh; empty if there can be none. Lives reports
	// whether another one is alive.
	Holder string
	Lives  func(holder string) bool
	// Signed is called for each issued certificate.
	Signed func()
	Log    *slog.Logger
	Now    func() time.Time
}

// Agents serves the agents of nodes and gateways.
type Agents struct {
	Config
	refusals refusals
	quotas   quotas
	trials   trials
	// revoked are the revoked administrator certificates that agents are told of. Some may have expired.
	revoked atomic.Pointer[[]state.Admin]

	mu       sync.Mutex // guards the fields below
	briefing *briefing  // nil before the first one
	known    map[string]*agent
	remote   map[string]remote            // agents connected to other control planes, by node
	clashed  map[string][]finding.Finding // by node: the clashes of its workloads that are already recorded
}

// New returns Agents that know the revoked administrators.
func New(ctx context.Context, c Config) (*Agents, error) {
	a := &Agents{
		Config: c, refusals: refusals{from: map[netip.Addr]*rate.Limiter{}}, quotas: quotas{of: map[string]*quota{}},
		trials: trials{open: map[string]*trialStream{}}, known: map[string]*agent{}, remote: map[string]remote{},
		clashed: map[string][]finding.Finding{},
	}
	return a, a.ReloadAll(ctx)
}

// Run keeps the store informed of silent nodes until ctx is done.
func (a *Agents) Run(ctx context.Context) error { return a.watchHeartbeats(ctx) }

// Ask asks a proxy's agent whether its Envoy accepts these resources. A contain.Refusal is Envoy's answer; any other
// error means that there is none.
func (a *Agents) Ask(ctx context.Context, proxy string, resources []*envoy.Resource) error {
	return a.trials.try(ctx, proxy, resources)
}

// node returns the caller's node in the state. A revoked node is an error.
func (a *Agents) node(ctx context.Context, c door.Caller) (state.Node, error) {
	if c.Kind != door.Node || c.ID.TrustDomain() != a.TrustDomain {
		return state.Node{}, status.Errorf(codes.PermissionDenied, "%s is no node of this mesh", c.Actor())
	}
	if err := a.Standing.Judge(ctx, c); err != nil {
		return state.Node{}, err
	}
	return a.Standing.Node(ctx, c.Name, c.Certificate.Generation)
}

// Identify returns the proxy of a discovery stream: the node's, or that of a workload for which this node registered a
// proxy of its own. A node cannot name another's.
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

// CanTry reports whether a node's agent can be asked.
func (a *Agents) CanTry(node string) bool {
	a.trials.mu.Lock()
	defer a.trials.mu.Unlock()
	return a.trials.open[node] != nil
}

// record writes an event that the door does not record itself.
func (a *Agents) record(ctx context.Context, e state.Event) error {
	e.Time = a.Now()
	return a.State.Record(context.WithoutCancel(ctx), e)
}
