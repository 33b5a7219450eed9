package meshd

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/ca"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/version"
	"isthmus.dev/isthmus/internal/xds"
)

// admin serves the command line.
type admin struct{ d *Daemon }

// now is what is in force, or an error that says to wait.
func (a *admin) now() (*published, error) {
	p := a.d.loop.published.Load()
	if p == nil {
		return nil, status.Error(codes.Unavailable, "the control plane has no configuration in force yet: try again in a moment")
	}
	return p, nil
}

// CreateToken makes a join token.
func (a *admin) CreateToken(ctx context.Context, r *adminapi.TokenRequest) (*adminapi.TokenResponse, error) {
	maker, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	t, err := a.d.authority.CreateToken(ctx, ca.TokenSpec{
		Node: r.Node, Role: r.Role, Grant: r.Grant(), TTL: r.TTL, Addresses: a.d.agentAddresses(), MadeBy: maker.Actor(),
	})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	door.Note(ctx, "made join token "+t.ID)
	return &adminapi.TokenResponse{Token: t.Token.Reveal(), Expires: t.Expires}, nil
}

// agentAddresses are what agents may dial: the names given, or the address that is listened on, or every address of this host.
func (d *Daemon) agentAddresses() []string {
	host, port, err := net.SplitHostPort(d.cfg.AgentAddress)
	if err != nil {
		return nil
	}
	var out []string
	for _, n := range d.cfg.Names.DNS {
		out = append(out, net.JoinHostPort(n, port))
	}
	for _, ip := range d.cfg.Names.IPs {
		out = append(out, net.JoinHostPort(ip.String(), port))
	}
	if ip, err := netip.ParseAddr(host); err == nil && !ip.IsUnspecified() {
		out = append(out, d.cfg.AgentAddress)
	}
	if len(out) > 0 {
		return out
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() {
			out = append(out, net.JoinHostPort(n.IP.String(), port))
		}
	}
	return out[:min(len(out), 8)]
}

// Status is the state of the mesh.
func (a *admin) Status(context.Context, *adminapi.Empty) (*adminapi.StatusResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	files := map[string]bool{}
	for _, o := range p.snapshot.Config.Origins.All() {
		files[o.File] = true
	}
	return &adminapi.StatusResponse{
		Mesh: p.mesh.Name, TrustDomain: p.mesh.TrustDomain.Name(), Version: version.String(), Started: a.d.started,
		ConfigFiles: len(files), Objects: p.snapshot.Config.Origins.Len(), Findings: p.allFindings(), Proxies: a.proxies(p),
		RootNotAfter: a.d.authority.RootNotAfter(), RootSHA256: a.d.authority.RootFingerprint(),
	}, nil
}

func (a *admin) proxies(p *published) []adminapi.ProxyStatus {
	reports := a.d.agents.reports()
	xdsStatus := map[string]xds.ProxyStatus{}
	for _, s := range a.d.xds.Status() {
		xdsStatus[s.Name] = s
	}
	var out []adminapi.ProxyStatus
	for _, n := range p.snapshot.Registry.Nodes {
		r := reports[n.Name]
		ps := adminapi.ProxyStatus{Name: n.Name, Role: n.Role, Envoy: r.Envoy, Certs: r.Certs, Workloads: []string{}}
		proxy := p.mesh.Proxies[n.Name]
		if proxy == nil || len(proxy.Sidecars) == 0 || len(proxy.Workloads) > 0 {
			out = append(out, a.contained(withXDS(ps, proxy, xdsStatus)))
		}
		if proxy == nil {
			continue
		}
		for _, w := range proxy.Sidecars {
			ps := ps
			ps.Name = w.Proxy()
			ps.Certs = slices.DeleteFunc(slices.Clone(r.Certs), func(c agentapi.CertState) bool { return c.SPIFFEID != w.Identity.String() })
			out = append(out, a.contained(withXDS(ps, p.mesh.Proxies[ps.Name], xdsStatus)))
		}
	}
	return out
}

// withXDS completes a row by what the proxy serves and what it was told.
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
			Type: t.Type, Resources: t.Resources, Sent: generation(t.Sent), Acked: generation(t.Acked), SentAt: t.SentAt, AckedAt: t.AckedAt, Nack: t.Nack,
		})
	}
	return ps
}

func (a *admin) contained(ps adminapi.ProxyStatus) adminapi.ProxyStatus {
	ps.Contained = a.d.containment.status(ps.Name)
	return ps
}

func generation(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// ProxyConfig is what one proxy should have, each resource with the objects that it comes from.
func (a *admin) ProxyConfig(_ context.Context, r *adminapi.ProxyConfigRequest) (*adminapi.ProxyConfigResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	if p.mesh.Proxies[r.Name] == nil {
		return nil, status.Errorf(codes.NotFound, "there is no proxy %q: isthmus status lists them", r.Name)
	}
	resp := &adminapi.ProxyConfigResponse{Resources: []adminapi.ProxyResource{}}
	for _, res := range a.d.xds.Resources(r.Name) {
		if r.Type != "" && !strings.EqualFold(r.Type, xds.ShortType(res.Type)) {
			continue
		}
		pr, err := shown(res)
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		resp.Resources = append(resp.Resources, pr)
	}
	return resp, nil
}

// CertList is the certificates in use at the agents that are connected.
func (a *admin) CertList(context.Context, *adminapi.Empty) (*adminapi.CertListResponse, error) {
	resp := &adminapi.CertListResponse{Certs: []adminapi.NodeCert{}}
	for node, r := range a.d.agents.reports() {
		for _, c := range r.Certs {
			resp.Certs = append(resp.Certs, adminapi.NodeCert{Node: node, CertState: c})
		}
	}
	slices.SortFunc(resp.Certs, func(x, y adminapi.NodeCert) int {
		return cmp.Or(cmp.Compare(x.Node, y.Node), cmp.Compare(x.SPIFFEID, y.SPIFFEID))
	})
	return resp, nil
}

// invalid is a refusal of what an administrator asked for.
func invalid(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}
