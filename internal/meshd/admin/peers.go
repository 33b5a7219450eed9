package admin

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/agentapi"
	"isthmus.dev/isthmus/internal/door"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/finding"
	"isthmus.dev/isthmus/internal/meshd/spine"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
	"isthmus.dev/isthmus/internal/spiffe"
)

// PeerInvite opens an invitation: this side's consent.
func (a *Admin) PeerInvite(ctx context.Context, r *adminapi.PeerInviteRequest) (*adminapi.PeerInviteResponse, error) {
	if err := a.mayInvite(); err != nil {
		return nil, invalid(err)
	}
	if err := a.Gateways.Ready(ctx); err != nil {
		return nil, invalid(err)
	}
	inv, err := a.Federation.Invite(ctx, r.Peer, r.TTL)
	if err != nil {
		return nil, invalid(err)
	}
	resp := &adminapi.PeerInviteResponse{
		Token: inv.Token.Encode(), Expires: inv.Expires,
		TrustDomain: a.Authority.TrustDomain().Name(), Fingerprint: inv.Fingerprint,
	}
	for _, addr := range inv.Token.Addresses {
		resp.Addresses = append(resp.Addresses, addr.String())
	}
	return resp, nil
}

// PeerAccept accepts a peer's invitation: the other side's consent.
func (a *Admin) PeerAccept(ctx context.Context, r *adminapi.PeerAcceptRequest) (*adminapi.PeerAcceptResponse, error) {
	if err := a.Gateways.Ready(ctx); err != nil {
		return nil, invalid(err)
	}
	p, err := a.Federation.Accept(ctx, r.Token, r.Name)
	if err != nil {
		return nil, invalid(err)
	}
	door.Note(ctx,
		fmt.Sprintf("peer %s, trust domain %s, fingerprint %s, own %s", p.Peer, p.TrustDomain, p.PeersFingerprint,
			p.OwnFingerprint))
	return &adminapi.PeerAcceptResponse{
		Peer: p.Peer, TrustDomain: p.TrustDomain, KnownAs: p.KnownAs, OwnFingerprint: p.OwnFingerprint,
		PeersFingerprint: p.PeersFingerprint,
	}, nil
}

// PeerSuspend blocks everything with a peer until PeerResume.
func (a *Admin) PeerSuspend(ctx context.Context, r *adminapi.PeerRequest) (*adminapi.Empty, error) {
	return &adminapi.Empty{}, invalid(a.Federation.Suspend(ctx, r.Peer))
}

// PeerTerms changes how long a peering made by token lasts.
func (a *Admin) PeerTerms(ctx context.Context, r *adminapi.PeerTermsRequest) (*adminapi.PeerTermsResponse, error) {
	age, expires, err := a.Federation.SetTerms(ctx, r.Peer,
		federation.Terms{MaxBundleAge: r.MaxBundleAge, ExpiresAt: r.ExpiresAt, Never: r.Never})
	if err != nil {
		return nil, invalid(err)
	}
	return &adminapi.PeerTermsResponse{Peer: r.Peer, MaxBundleAge: age, ExpiresAt: expires}, nil
}

// terms describes such a change for the record.
func terms(r *adminapi.PeerTermsRequest) string {
	var out []string
	if r.MaxBundleAge != 0 {
		out = append(out, "roots at most "+r.MaxBundleAge.String()+" old")
	}
	if !r.ExpiresAt.IsZero() {
		out = append(out, "ends at "+r.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if r.Never {
		out = append(out, "does not end")
	}
	return strings.Join(out, ", ")
}

// PeerResume ends a suspension.
func (a *Admin) PeerResume(ctx context.Context, r *adminapi.PeerRequest) (*adminapi.Empty, error) {
	return &adminapi.Empty{}, invalid(a.Federation.Resume(ctx, r.Peer))
}

// PeerRevoke ends a peering.
func (a *Admin) PeerRevoke(ctx context.Context, r *adminapi.PeerRequest) (*adminapi.Empty, error) {
	return &adminapi.Empty{}, invalid(a.Federation.Revoke(ctx, r.Peer))
}

// PeerManifest returns the MeshPeer file that describes this mesh.
func (a *Admin) PeerManifest(
	_ context.Context, r *adminapi.PeerManifestRequest,
) (*adminapi.PeerManifestResponse, error) {
	text, fingerprint, err := a.Federation.Manifest(r.As, r.KnownAs)
	if err != nil {
		return nil, invalid(err)
	}
	return &adminapi.PeerManifestResponse{YAML: text, Fingerprint: fingerprint}, nil
}

// PeerList returns everything known about one peer or all.
func (a *Admin) PeerList(_ context.Context, r *adminapi.PeerRequest) (*adminapi.PeerListResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	counts := PeerCounts(a.Agents.Reports())
	resp := &adminapi.PeerListResponse{Peers: []adminapi.PeerStatus{}}
	for _, mp := range snapshot.Of[*v1alpha1.MeshPeer](p.Snapshot.Config) {
		if r.Peer == "" || r.Peer == mp.Name {
			resp.Peers = append(resp.Peers, a.peerStatus(p, mp, counts[mp.Name]))
		}
	}
	if r.Peer != "" && len(resp.Peers) == 0 {
		return nil, status.Errorf(codes.NotFound, "there is no peer %q: isthmus peer list shows them", r.Peer)
	}
	return resp, nil
}

func (a *Admin) peerStatus(p *spine.Published, mp *v1alpha1.MeshPeer, counts agentapi.PeerCounts) adminapi.PeerStatus {
	st := p.Snapshot.Peers[mp.Name]
	out := adminapi.PeerStatus{
		Name: mp.Name, TrustDomain: mp.Spec.TrustDomain, KnownAs: mp.Spec.KnownAs, Source: "peering",
		Addresses:        mp.Spec.GatewayAddresses,
		PeersFingerprint: peerrules.FingerprintOf(mp, st), Roots: fingerprints(peerrules.Roots(mp, st)),
		OwnRoots:       fingerprints(p.Snapshot.Roots),
		BundleSequence: st.BundleSequence, BundleTime: st.BundleTime, Counts: counts,
		Conditions: a.Federation.ConditionsOf(mp),
	}
	out.OwnFingerprint, _ = a.Federation.Fingerprint() // empty without a gateway
	out.MaxBundleAge, _ = peerrules.MaxBundleAge(mp)
	if o := p.Snapshot.Config.Origin(snapshot.KeyOf(mp)); o.Source == snapshot.SourceFile {
		out.Source = fmt.Sprintf("%s:%d", o.File, o.Line)
	}
	if roots, err := peerrules.ParseRoots(peerrules.Roots(mp, st)); err == nil && len(roots) > 0 {
		out.RootNotAfter = roots[0].NotAfter
	}
	if c := st.Catalogue; c != nil {
		out.CatalogueSequence, out.CatalogueTime, out.Offered = c.Sequence, c.Time, len(c.Services)
	}
	for _, e := range p.Mesh.Exports {
		if e.Peer.Name == mp.Name {
			out.Exports++
		}
	}
	for _, i := range p.Mesh.Imports {
		if slices.ContainsFunc(i.Remotes, func(r model.Remote) bool { return r.Peer.Name == mp.Name }) {
			out.Imports++
		}
	}
	return out
}

func fingerprints(pem []byte) []string {
	roots, err := peerrules.ParseRoots(pem)
	if err != nil {
		return nil
	}
	var out []string
	for _, r := range roots {
		out = append(out, spiffe.Fingerprint(r))
	}
	return out
}

// PeerCounts adds up the gateways' counts.
func PeerCounts(reports map[string]agentapi.Report) map[string]agentapi.PeerCounts {
	out := map[string]agentapi.PeerCounts{}
	for _, r := range reports {
		for peer, n := range r.Peers {
			t := out[peer]
			t.HandshakesOK += n.HandshakesOK
			t.HandshakesFailed += n.HandshakesFailed
			t.Requests += n.Requests
			t.Denials += n.Denials
			t.BytesIn += n.BytesIn
			t.BytesOut += n.BytesOut
			out[peer] = t
		}
	}
	return out
}

// Catalogue returns what peers offer and what of it is imported.
func (a *Admin) Catalogue(_ context.Context, r *adminapi.PeerRequest) (*adminapi.CatalogueResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	resp := &adminapi.CatalogueResponse{Entries: []adminapi.CatalogueEntry{}}
	for _, name := range slices.Sorted(maps.Keys(p.Snapshot.Peers)) {
		c := p.Snapshot.Peers[name].Catalogue
		if c == nil || (r.Peer != "" && r.Peer != name) {
			continue
		}
		for _, s := range c.Services {
			resp.Entries = append(resp.Entries,
				adminapi.CatalogueEntry{Peer: name, OfferedService: s, ImportedAs: importedAs(p, name, s)})
		}
	}
	return resp, nil
}

func importedAs(p *spine.Published, peer string, s snapshot.OfferedService) []string {
	out := []string{}
	for _, i := range snapshot.Of[*v1alpha1.FederatedImport](p.Snapshot.Config) {
		for _, f := range i.Spec.From {
			if f.Peer == peer && cmp.Or(f.Name, i.Name) == s.Name && cmp.Or(f.Namespace, i.Namespace) == s.Namespace {
				out = append(out, fmt.Sprintf("%s:%d", model.ServiceHost(i.Name, i.Namespace, p.Mesh.Domain),
					i.Spec.Port))
			}
		}
	}
	return out
}

// Exports returns what this mesh offers, to whom, and whether it is ready.
func (a *Admin) Exports(_ context.Context, r *adminapi.PeerRequest) (*adminapi.ExportsResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	resp := &adminapi.ExportsResponse{Exports: []adminapi.ExportStatus{}}
	for _, fe := range snapshot.Of[*v1alpha1.FederatedExport](p.Snapshot.Config) {
		for n, to := range fe.Spec.To {
			if r.Peer == "" || r.Peer == to.Peer {
				resp.Exports = append(resp.Exports, exportStatus(p, fe, n))
			}
		}
	}
	return resp, nil
}

func exportStatus(p *spine.Published, fe *v1alpha1.FederatedExport, n int) adminapi.ExportStatus {
	name, to := fe.Namespace+"/"+fe.Name, fe.Spec.To[n]
	out := adminapi.ExportStatus{
		Name: name, Service: fe.Spec.Service, Port: uint16(fe.Spec.Port), Alias: cmp.Or(fe.Spec.Alias, fe.Spec.Service),
		Peer: to.Peer, Rules: len(to.Rules),
		State: "not exported: see isthmus peer status " + to.Peer,
	}
	for _, e := range p.Mesh.Exports {
		if e.Name != name || e.Peer.Name != to.Peer {
			continue
		}
		out.Protocol, out.SNI, out.State = e.Port.Protocol.String(), e.SNI, "Ready"
		for _, ep := range p.Mesh.Endpoints[e.Set()] {
			if ep.Healthy {
				out.Endpoints++
			}
		}
		if out.Endpoints == 0 {
			out.State = "no endpoint is ready"
		}
	}
	if found := worstFinding(p, snapshot.KeyOf(fe), "spec.to[",
		n); found != "" {
		out.State = found
	}
	return out
}

// worstFinding returns the worst finding about an object, or about the n-th element of a list in it. Such an object
// works only in part or not at all.
func worstFinding(p *spine.Published, key snapshot.Key, list string, n int) string {
	for _, f := range p.AllFindings() { // sorted, the worst first
		other := strings.HasPrefix(f.Field, list) && !strings.HasPrefix(f.Field, fmt.Sprintf("%s%d]", list, n))
		if f.Object == key && !other && f.Severity != finding.Info {
			return f.Message
		}
	}
	return ""
}

// Imports returns what this mesh imports.
func (a *Admin) Imports(_ context.Context, r *adminapi.PeerRequest) (*adminapi.ImportsResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	resp := &adminapi.ImportsResponse{Imports: []adminapi.ImportStatus{}}
	for _, fi := range snapshot.Of[*v1alpha1.FederatedImport](p.Snapshot.Config) {
		if r.Peer == "" || slices.ContainsFunc(fi.Spec.From,
			func(f v1alpha1.ImportFrom) bool { return f.Peer == r.Peer }) {
			resp.Imports = append(resp.Imports, importStatus(p, fi, a.unready(p)))
		}
	}
	return resp, nil
}

// unready returns why a peer cannot serve an export now, as the peer reports it; "" if it can.
func (a *Admin) unready(p *spine.Published) func(model.Remote) string {
	return unready(p, func(peer string) bool { return a.Federation.Health(peer).ClosedThere })
}

func unready(p *spine.Published, closedThere func(peer string) bool) func(model.Remote) string {
	return func(r model.Remote) string {
		switch {
		case closedThere(r.Peer.Name):
			return "peer " + r.Peer.Name + " lets nothing of this mesh through"
		case p.Snapshot.Peers[r.Peer.Name].Readiness.IsUnready(snapshot.OfferedName{
			Namespace: r.Namespace,
			Name:      r.Alias,
		}):
			return "no endpoint is ready at peer " + r.Peer.Name
		}
		return ""
	}
}

// nobodyReady returns why no source of an import is ready; "" if one is.
func nobodyReady(mesh *model.Mesh, i *model.Import, unready func(model.Remote) string) string {
	var why []string
	for _, r := range i.Remotes {
		said := unready(r)
		if said == "" {
			return ""
		}
		why = append(why, said)
	}
	if i.Local != nil {
		if slices.ContainsFunc(mesh.Endpoints[i.Own()], func(e model.Endpoint) bool { return e.Healthy }) {
			return ""
		}
	}
	return strings.Join(why, "; ")
}

func importStatus(
	p *spine.Published, fi *v1alpha1.FederatedImport, unready func(model.Remote) string,
) adminapi.ImportStatus {
	out := adminapi.ImportStatus{
		Name: fi.Namespace + "/" + fi.Name, Host: model.ServiceHost(fi.Name, fi.Namespace, p.Mesh.Domain),
		Port:     uint16(fi.Spec.Port),
		Protocol: cmp.Or(string(fi.Spec.Protocol), "HTTP"), Callers: []string{}, From: []string{},
		State: "ignored: see isthmus status",
	}
	at := slices.IndexFunc(p.Mesh.Imports, func(i *model.Import) bool { return i.Name == out.Name })
	if at >= 0 {
		i := p.Mesh.Imports[at]
		out.Callers, out.State = i.Callers, "Ready"
		if svc := p.Mesh.Services[i.ID]; svc != nil && svc.VIP.IsValid() {
			out.VIP = svc.VIP.String()
		}
		for _, rem := range i.Remotes {
			out.From = append(out.From, fmt.Sprintf("%s weight %d priority %d", rem.SNI, rem.Weight, rem.Priority))
		}
		if i.Local != nil {
			out.From = append(out.From, fmt.Sprintf("local endpoints weight %d priority %d", i.Local.Weight,
				i.Local.Priority))
		}
		if len(out.From) == 0 {
			out.State = "no live peer serves it"
		} else if s := unknownOffer(p, fi); s != "" {
			out.State = s
		} else if s := nobodyReady(p.Mesh, i, unready); s != "" {
			out.State = s
		}
	}
	if found := worstFinding(p, snapshot.KeyOf(fi), "\x00",
		0); found != "" {
		out.State = found
	}
	return out
}

// unknownOffer reports that a peer has not sent its catalogue yet.
func unknownOffer(p *spine.Published, fi *v1alpha1.FederatedImport) string {
	for _, f := range fi.Spec.From {
		if peer := p.Mesh.Peers[f.Peer]; peer != nil && peer.Live && p.Snapshot.Peers[f.Peer].Catalogue == nil {
			return "peer " + f.Peer + " has not said yet what it offers"
		}
	}
	return ""
}
