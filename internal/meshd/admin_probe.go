package meshd

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"isthmus.dev/isthmus/api/v1alpha1"
	"isthmus.dev/isthmus/internal/adminapi"
	"isthmus.dev/isthmus/internal/federation"
	"isthmus.dev/isthmus/internal/model"
	"isthmus.dev/isthmus/internal/peerrules"
	"isthmus.dev/isthmus/internal/snapshot"
)

// PeerProbe sends a synthetic request through both gateways.
func (a *admin) PeerProbe(ctx context.Context, r *adminapi.PeerProbeRequest) (*adminapi.PeerProbeResponse, error) {
	p, err := a.now()
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(p.snapshot.Config.MeshPeers, func(mp *v1alpha1.MeshPeer) bool { return mp.Name == r.Peer }) {
		return nil, status.Errorf(codes.NotFound, "there is no peer %q: isthmus peer list shows them", r.Peer)
	}
	var t federation.Target
	if r.Import != "" {
		if t, err = target(p.mesh, r); err != nil {
			return nil, err
		}
	}
	resp, err := a.d.federation.Probe(ctx, r.Peer, t)
	return resp, invalid(err)
}

// target is the export that stands behind an import.
func target(mesh *model.Mesh, r *adminapi.PeerProbeRequest) (federation.Target, error) {
	for _, i := range mesh.Imports {
		if i.Name != r.Import {
			continue
		}
		for _, rem := range i.Remotes {
			if rem.Peer.Name == r.Peer {
				return federation.Target{Import: i.Name, SNI: rem.SNI, HTTP: i.Protocol.IsHTTP()}, nil
			}
		}
		return federation.Target{}, status.Errorf(codes.NotFound, "import %s takes nothing from peer %q now: isthmus imports shows from whom", r.Import, r.Peer)
	}
	return federation.Target{}, status.Errorf(codes.NotFound, "there is no FederatedImport %q: isthmus imports lists them", r.Import)
}

// export says whether a name is exported to a peer, and whether an endpoint of the service is ready.
func (d *Daemon) export(peer, sni string) (exported, ready bool) {
	p := d.loop.published.Load()
	if p == nil {
		return false, false
	}
	for _, e := range p.mesh.Exports {
		if e.SNI == sni && e.Peer.Name == peer {
			return true, p.mesh.IsReady(e)
		}
	}
	return false, false
}

// unready are the services offered to a peer of which no endpoint is ready, sorted.
func (d *Daemon) unready(peer string) (out []snapshot.OfferedName) {
	p := d.loop.published.Load()
	if p == nil {
		return nil
	}
	for _, e := range p.mesh.Exports {
		if e.Peer.Name == peer && !p.mesh.IsReady(e) {
			out = append(out, snapshot.OfferedName{Namespace: e.Service.ID.Namespace, Name: e.Alias})
		}
	}
	slices.SortFunc(out, snapshot.OfferedName.Compare)
	return out[:min(len(out), peerrules.MaxOffered)]
}

// sameReadiness says that of each export it is true in both meshes, or in neither, that an endpoint is ready. The exports are
// the same in both.
func sameReadiness(before, now *model.Mesh) bool {
	return !slices.ContainsFunc(now.Exports, func(e *model.Export) bool { return before.IsReady(e) != now.IsReady(e) })
}
