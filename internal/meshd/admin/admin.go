// Package admin serves the administration API for the command line.
package admin

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/envoy"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/meshd/gateways"
	"isthmus.dev/isthmus/internal/meshd/rotation"
	"isthmus.dev/isthmus/internal/meshd/spine"
	"isthmus.dev/isthmus/internal/meshd/standing"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/state"
	"isthmus.dev/isthmus/internal/version"
	"isthmus.dev/isthmus/internal/xds"
)

// State is the stored data about administrators, tokens and actions.
type State interface {
	AddAdmin(context.Context, state.Admin) error
	Admins(context.Context) ([]state.Admin, error)
	RevokeAdmins(ctx context.Context, name, generation string, now time.Time) error
	Tokens(context.Context) ([]state.Token, error)
	CancelToken(ctx context.Context, id string, now time.Time) error
	CancelTokensMadeBy(ctx context.Context, maker string, now time.Time) (cancelled int64, err error)
	Events(context.Context, state.EventFilter) ([]state.Event, error)
	Check(context.Context) error
	Place() string
}

// Agents are the agents of nodes and gateways.
type Agents interface {
	Reports() map[string]agentapi.Report
	Revoke(ctx context.Context, node string) (unwritten string, err error)
	RemainingCertificates(ctx context.Context, node string) ([]adminapi.RevokedCert, error)
	TellRevoked([]state.Admin)
}

// Proxies is the state of proxies in the xDS server.
type Proxies interface {
	Status() []xds.ProxyStatus
	Resources(proxy string) []*envoy.Resource
}

// Config of an Admin. All fields are required.
type Config struct {
	Authority  *ca.Authority
	State      State
	Standing   *standing.Standing
	Pending    *standing.Pending
	Door       *door.Door
	Refusals   *door.Refusals
	Agents     Agents
	Proxies    Proxies
	Federation *federation.Service
	Gateways   *gateways.Watch
	Rotator    *rotation.Rotator
	// Snapshot returns the latest snapshot, Published what is in effect; nil if there is nothing yet.
	Snapshot  func() *snapshot.Snapshot
	Published func() *spine.Published
	// Contained describes the containment of a proxy; nil if there is none.
	Contained func(proxy string) *adminapi.Containment
	// AgentAddresses returns the addresses at which agents reach this control plane.
	AgentAddresses func() []string
	Started        time.Time
	Log            *slog.Logger
	Now            func() time.Time
}

// Admin serves the administration API.
type Admin struct{ Config }

// New returns an Admin.
func New(c Config) *Admin { return &Admin{c} }

// now returns what is in effect, or an error that says to wait.
func (a *Admin) now() (*spine.Published, error) {
	p := a.Published()
	if p == nil {
		return nil, status.Error(codes.Unavailable,
			"the control plane has no configuration in force yet: try again in a moment")
	}
	return p, nil
}

// CreateToken creates a join token.
func (a *Admin) CreateToken(ctx context.Context, r *adminapi.TokenRequest) (*adminapi.TokenResponse, error) {
	maker, err := door.Of(ctx)
	if err != nil {
		return nil, err
	}
	t, err := a.Authority.CreateToken(ctx, ca.TokenSpec{
		Node: r.Node, Role: r.Role, Grant: r.Grant(), TTL: r.TTL, Addresses: a.AgentAddresses(), MadeBy: maker.Actor(),
	})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	door.Note(ctx, "made join token "+t.ID)
	return &adminapi.TokenResponse{Token: t.Token.Reveal(), Expires: t.Expires}, nil
}

// Status returns the state of the mesh.
func (a *Admin) Status(context.Context, *adminapi.Empty) (*adminapi.StatusResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	files := map[string]bool{}
	for o := range p.Snapshot.Config.Objects.All() {
		if o.Origin.Source == snapshot.SourceFile {
			files[o.Origin.File] = true
		}
	}
	return &adminapi.StatusResponse{
		Mesh: p.Mesh.Name, TrustDomain: p.Mesh.TrustDomain.Name(), Version: version.String(), Started: a.Started,
		ConfigFiles: len(files), Objects: p.Snapshot.Config.Objects.Len(), Findings: p.AllFindings(),
		Proxies:      a.proxies(p),
		RootNotAfter: a.Authority.RootNotAfter(), RootSHA256: a.Authority.RootFingerprint(),
	}, nil
}

func (a *Admin) proxies(p *spine.Published) []adminapi.ProxyStatus {
	reports := a.Agents.Reports()
	xdsStatus := map[string]xds.ProxyStatus{}
	for _, s := range a.Proxies.Status() {
		xdsStatus[s.Name] = s
	}
	var out []adminapi.ProxyStatus
	for _, n := range p.Snapshot.Registry.Nodes {
		r := reports[n.Name]
		ps := adminapi.ProxyStatus{Name: n.Name, Role: n.Role, Envoy: r.Envoy, Certs: r.Certs, Workloads: []string{}}
		proxy := p.Mesh.Proxies[n.Name]
		if proxy == nil || len(proxy.Sidecars) == 0 || len(proxy.Workloads) > 0 {
			out = append(out, a.contained(withXDS(ps, proxy, xdsStatus)))
		}
		if proxy == nil {
			continue
		}
		for _, w := range proxy.Sidecars {
			ps := ps
			ps.Name = w.Proxy()
			ps.Certs = slices.DeleteFunc(slices.Clone(r.Certs),
				func(c agentapi.CertState) bool { return c.SPIFFEID != w.Identity.String() })
			out = append(out, a.contained(withXDS(ps, p.Mesh.Proxies[ps.Name], xdsStatus)))
		}
	}
	return out
}

// withXDS adds what the proxy serves and was sent.
func withXDS(ps adminapi.ProxyStatus, proxy *model.Proxy, told map[string]xds.ProxyStatus) adminapi.ProxyStatus {
	s := told[ps.Name]
	ps.Connected, ps.Since = s.Connected, s.Since
	if proxy != nil {
		for _, w := range proxy.Workloads {
			ps.Workloads = append(ps.Workloads, w.ID.String())
		}
	}
	for _, t := range s.Types {
		ps.Types = append(ps.Types, adminapi.TypeStatus{
			Type: t.Type, Resources: t.Resources, Sent: generation(t.Sent), Acked: generation(t.Acked),
			SentAt: t.SentAt, AckedAt: t.AckedAt, Nack: t.Nack,
		})
	}
	return ps
}

func (a *Admin) contained(ps adminapi.ProxyStatus) adminapi.ProxyStatus {
	ps.Contained = a.Contained(ps.Name)
	return ps
}

func generation(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// ProxyConfig returns the resources that one proxy should have, each with the objects that it comes from.
func (a *Admin) ProxyConfig(_ context.Context, r *adminapi.ProxyConfigRequest) (*adminapi.ProxyConfigResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	if p.Mesh.Proxies[r.Name] == nil {
		return nil, status.Errorf(codes.NotFound, "there is no proxy %q: isthmus status lists them", r.Name)
	}
	resp := &adminapi.ProxyConfigResponse{Resources: []adminapi.ProxyResource{}}
	for _, res := range a.Proxies.Resources(r.Name) {
		if r.Type != "" && !strings.EqualFold(r.Type, xds.ShortType(res.Type)) {
			continue
		}
		pr, err := spine.Show(res)
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		resp.Resources = append(resp.Resources, pr)
	}
	return resp, nil
}

// CertList returns the certificates in use at connected agents.
func (a *Admin) CertList(context.Context, *adminapi.Empty) (*adminapi.CertListResponse, error) {
	resp := &adminapi.CertListResponse{Certs: []adminapi.NodeCert{}}
	for node, r := range a.Agents.Reports() {
		for _, c := range r.Certs {
			resp.Certs = append(resp.Certs, adminapi.NodeCert{Node: node, CertState: c})
		}
	}
	slices.SortFunc(resp.Certs, func(x, y adminapi.NodeCert) int {
		return cmp.Or(cmp.Compare(x.Node, y.Node), cmp.Compare(x.SPIFFEID, y.SPIFFEID))
	})
	return resp, nil
}

// invalid returns the error for an invalid request.
func invalid(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}
